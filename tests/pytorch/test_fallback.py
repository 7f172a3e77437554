"""Operators without a chip kernel run on the host: counted by name, in HBM, and only if they may."""

import warnings

import pytest
import torch

from tapeout.errors import TapeoutError
from tapeout.pytorch import device as chip_device
from tapeout.pytorch import ledger


@pytest.fixture(autouse=True)
def counting():
    ledger.reset()
    yield
    chip_device.set_fallback("count")


def in_hbm(tensor: torch.Tensor) -> bool:
    return chip_device.block_of(tensor.data_ptr()) is not None


def test_a_fallback_is_counted_by_name():
    values = torch.randn(10).to("chip")
    ledger.reset()
    for _ in range(3):
        torch.sort(values)
    counts = ledger.snapshot()
    assert counts.on_host == {"aten::sort.values_stable": 3}
    assert counts.on_host_bytes >= 3 * 10 * 4
    assert counts.host_to_chip_bytes == counts.chip_to_host_bytes == 0


def test_results_of_a_fallback_are_in_hbm():
    values = torch.randn(10).to("chip")
    ordered, index = torch.sort(values)
    assert in_hbm(ordered) and in_hbm(index)
    assert all(in_hbm(part) for part in torch.linalg.qr(torch.randn(4, 4).to("chip")))


def test_resized_outputs_of_a_fallback_are_in_hbm():
    ordered, index = torch.empty(0, device="chip"), torch.empty(0, dtype=torch.int64, device="chip")
    torch.sort(torch.tensor([3.0, 1.0, 2.0]).to("chip"), out=(ordered, index))
    assert ordered.tolist() == [1, 2, 3] and index.tolist() == [1, 2, 0]
    assert in_hbm(ordered) and in_hbm(index)


def test_in_place_fallbacks_write_the_chips_own_memory():
    values = torch.zeros(5).to("chip")
    address = values.data_ptr()
    values.put_(torch.tensor([1, 3]).to("chip"), torch.tensor([7.0, 8.0]).to("chip"))
    assert values.tolist() == [0, 7, 0, 8, 0] and values.data_ptr() == address


def test_the_error_policy_names_the_operator():
    values = torch.randn(10).to("chip")
    chip_device.set_fallback("error")
    with pytest.raises(NotImplementedError, match=r"aten::sort.values_stable has no kernel for the chip") as error:
        torch.sort(values)
    assert "TAPEOUT_FALLBACK=error" in str(error.value)
    with pytest.raises(NotImplementedError, match=r"aten::mm has no kernel for the chip for these arguments"):
        torch.ones(2, 2, dtype=torch.int64, device="chip") @ torch.ones(2, 2, dtype=torch.int64, device="chip")


def test_views_and_copies_are_no_fallbacks():
    chip_device.set_fallback("error")
    values = torch.arange(12.0).to("chip").view(3, 4)
    assert values.t()[1:, :2].contiguous().cpu().tolist() == [[1, 5], [2, 6], [3, 7]]
    counts = ledger.snapshot()
    assert counts.on_host == {}
    assert (counts.host_to_chip_bytes, counts.chip_to_host_bytes) == (48, 24)


def test_the_warn_policy_warns_once():
    chip_device.set_fallback("warn")
    values = torch.randn(4).to("chip")
    with pytest.warns(UserWarning, match="aten::kthvalue.* has no kernel for the chip and runs on the host"):
        torch.kthvalue(values, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.kthvalue(values, 1)


def test_an_unknown_policy_is_refused():
    with pytest.raises(
        TapeoutError, match=r"TAPEOUT_FALLBACK='never' is not a policy; choose one of count, warn, error"
    ):
        chip_device.set_fallback("never")


def test_a_convolution_and_its_gradient_run_on_the_host():
    torch.manual_seed(0)
    image, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    results = []
    for device in ("cpu", "chip"):
        w = weight.clone().to(device).requires_grad_()
        out = torch.nn.functional.conv2d(image.to(device), w)
        out.sum().backward()
        results.append((out.detach().cpu(), w.grad.cpu()))
    torch.testing.assert_close(results[1], results[0])
    counts = ledger.snapshot().on_host
    assert counts["aten::convolution"] == 1 and counts["aten::convolution_backward"] == 1
