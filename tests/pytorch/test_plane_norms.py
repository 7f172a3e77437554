"""Group norm, batch norm and their gradients against the CPU: rows that a few tiles hold, odd ones, and long ones."""

import pytest
import torch
from torch.nn import functional

from tapeout import chip as chips
from tapeout.pytorch import ledger
from tapeout.pytorch.ops.tiles import planes_tile

SHAPES = ((3, 12, 33, 35), (4, 6, 1000), (1, 24, 5, 7), (2, 6, 120, 101))
KINDS = ("group", "batch", "batch in evaluation", "instance")


def results(kind, device, source, weight, bias, gradient):
    operands = [None if t is None else t.to(device).detach().clone().requires_grad_() for t in (source, weight, bias)]
    channels = source.shape[1]
    running = [torch.linspace(low, 2, channels).to(device) for low in (-1, 1)]
    x, factors = operands[0], operands[1:]
    if kind == "group":
        out = functional.group_norm(x, 3, *factors)
    elif kind == "instance":
        out = functional.instance_norm(x, None, None, *factors)
    else:
        out = functional.batch_norm(x, *running, *factors, training=kind == "batch")
    out.backward(gradient.to(device))
    found = [out, *(t.grad for t in operands if t is not None), *running]
    return [tensor.detach().cpu() for tensor in found]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_norms_and_gradients(kind, shape):
    generator = torch.Generator().manual_seed(0)
    source, gradient = (torch.randn(shape, generator=generator) * 2 + 1 for _ in range(2))
    weight, bias = (torch.randn(shape[1], generator=generator) for _ in range(2))
    for factors in ((weight, bias), (None, None)):
        ledger.reset()
        on_chip = results(kind, "chip", source, *factors, gradient)
        names = set(ledger.snapshot().on_chip)
        norm = "group" if kind == "group" else "batch"
        assert {f"aten::native_{norm}_norm", f"aten::native_{norm}_norm_backward"} <= names
        for chip, cpu in zip(on_chip, results(kind, "cpu", source, *factors, gradient), strict=True):
            torch.testing.assert_close(chip, cpu, rtol=2e-5, atol=2e-5 * cpu.abs().max().item())


@pytest.mark.parametrize("kind", ["group", "instance"])
def test_half_types_round_once(kind):
    generator = torch.Generator().manual_seed(0)
    source, gradient = (torch.randn(2, 12, 33, 9, generator=generator).bfloat16() for _ in range(2))
    weight, bias = (torch.randn(12, generator=generator).bfloat16() for _ in range(2))
    given = (source, weight, bias, gradient)
    exact = results(kind, "cpu", *(tensor.float() for tensor in given))
    for chip, wide in zip(results(kind, "chip", *given), exact, strict=True):
        scale = wide.abs().max().item()
        torch.testing.assert_close(chip.float(), wide, rtol=2**-8, atol=2e-3 * scale)


def test_a_mean_that_is_large_leaves_the_variance_its_digits():
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 6, 40, 40), (2, 6, 200, 200)):
        source = torch.randn(shape, generator=generator) + 1000
        found = functional.group_norm(source.to("chip"), 3).cpu()
        exact = functional.group_norm(source.double(), 3)
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-4)


def test_the_same_bits_every_time():
    x = torch.randn(2, 6, 33, 35, generator=torch.Generator().manual_seed(0)).to("chip")
    first, second = (functional.batch_norm(x, None, None, training=True).cpu() for _ in range(2))
    assert torch.equal(first, second)


def test_tiles_hold_rows_whole_and_leave_every_core_some():
    training = chips.REFERENCE_CHIPS["training"]
    tile = planes_tile(training, 960, 2, 1155, 1, 0)
    assert tile.is_whole
    assert tile.tiles * tile.pieces * tile.columns * 16 <= training.core.scratchpad.size_bytes
    assert tile.tiles * tile.pieces * tile.columns <= 1.5 * 2 * 1155
    assert 1 < tile.rows <= 960 / training.core_count
    assert planes_tile(training, 64, 10, 4096, 1, 32).rows == 1
    assert not planes_tile(training, 64, 64, 112 * 112, 1, 0).is_whole
