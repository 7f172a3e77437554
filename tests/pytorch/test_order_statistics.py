"""Operators made of others of the chip: by order, by counting, by weights of positions. Held to the CPU's, without the
host's help."""

import pytest
import torch
import torch.nn.functional as F

from tapeout.pytorch import device as chip_device


@pytest.fixture(autouse=True)
def host_is_forbidden():
    chip_device.set_fallback("error")
    yield
    chip_device.set_fallback("count")


VALUES = torch.tensor([[3.0, -1.0, 3.0, 2.0, 2.0, 7.0], [0.0, 5.0, float("nan"), -2.0, 5.0, 1.0]])
COUNTS = torch.tensor([4, 1, 1, 0, 4, 4, 2])

FUNCTIONS = {
    "kthvalue": lambda values, counts: values[:1].kthvalue(2, keepdim=True),
    "median": lambda values, counts: (values.median(), values[:1].median(), *values.median(1)),
    "nanmedian": lambda values, counts: (values.nanmedian(), *values.nanmedian(1)),
    "mode": lambda values, counts: counts.mode(),
    "unique": lambda values, counts: counts.unique(return_inverse=True, return_counts=True),
    "unique_consecutive": lambda values, counts: counts.unique_consecutive(return_inverse=True, return_counts=True),
    "unique rows": lambda values, counts: counts[:6].view(3, 2).unique(dim=0, return_inverse=True),
    "bincount": lambda values, counts: (counts.bincount(minlength=9), counts.bincount(counts.float())),
    "histc": lambda values, counts: values[:1].histc(4, 0, 6),
    "repeat_interleave": lambda values, counts: values.repeat_interleave(counts[:2], 0),
    "cummax": lambda values, counts: values.cummax(1),
    "cummin": lambda values, counts: values.cummin(0),
    "logcumsumexp": lambda values, counts: values.logcumsumexp(1),
    "equal": lambda values, counts: torch.tensor([values.equal(values), counts.equal(counts), counts.equal(-counts)]),
    "tril_indices": lambda values, counts: torch.tril_indices(3, 4, 1, device=values.device),
    "assignment by a mask": lambda values, counts: _assigned(values),
}


def _assigned(values):
    values = values.clone()
    values[values > 2] = 9.0
    values[values < 0] = values[values < 0] * 2
    return values


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_the_cpus(name):
    expected = FUNCTIONS[name](VALUES, COUNTS)
    found = FUNCTIONS[name](VALUES.to("chip"), COUNTS.to("chip"))
    for one, other in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (found, expected)), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-6, equal_nan=True)


IMAGE = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
GRADIENTS = {
    "bilinear": lambda x: F.interpolate(x, (9, 4), mode="bilinear"),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive average of volumes": lambda x: F.adaptive_avg_pool3d(x, (2, 4, 3)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "lstm": lambda x: _cell(torch.nn.LSTM, x),
    "gru": lambda x: _cell(torch.nn.GRU, x),
}


def _cell(kind, values):
    torch.manual_seed(0)
    return kind(5, 4).to(values.device)(values[0])[0]


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_the_cpus(name):
    found = []
    for device in ("cpu", "chip"):
        leaf = IMAGE.to(device, copy=True).requires_grad_()
        out = GRADIENTS[name](leaf)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape).to(device)).sum().backward()
        found.append((out.detach().cpu(), leaf.grad.cpu()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", (-1.0, float("nan"), float("inf")))
def test_multinomial_refuses_what_is_no_weight(bad):
    weights = torch.tensor([1.0, bad, 1.0], device="chip")
    with pytest.raises(Exception, match="probability tensor contains either `inf`, `nan` or element < 0"):
        torch.multinomial(weights, 1)
    with pytest.raises(Exception, match="too few weights above zero"):
        torch.multinomial(torch.tensor([1.0, 0.0], device="chip"), 2)


def test_an_index_that_is_out_of_range_is_said_so():
    table = torch.arange(8.0, device="chip").reshape(4, 2)
    bag = torch.tensor([0], device="chip")
    for look_up, bad in (
        (lambda index: F.embedding(index, table), (4, -1)),
        (lambda index: table.index_select(0, index), (4, -1)),
        (lambda index: F.embedding_bag(index, table, bag), (4, -1)),
        (lambda index: table[index], (4, -5)),
    ):
        for entry in bad:
            with pytest.raises((IndexError, RuntimeError), match=r"out of range|not in the valid range|out of bounds"):
                look_up(torch.tensor([0, entry], device="chip"))
    assert table[torch.tensor([-1], device="chip")].tolist() == [[6.0, 7.0]]
