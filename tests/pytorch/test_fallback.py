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
    values = torch.randn(4, 4).to("chip")
    ledger.reset()
    for _ in range(3):
        torch.linalg.qr(values)
    counts = ledger.snapshot()
    assert counts.on_host == {"aten::linalg_qr.out": 3}
    assert counts.on_host_bytes >= 3 * 16 * 4
    assert counts.host_to_chip_bytes == counts.chip_to_host_bytes == 0


def test_results_of_a_fallback_are_in_hbm():
    assert all(in_hbm(part) for part in torch.linalg.qr(torch.randn(4, 4).to("chip")))


def test_resized_outputs_of_a_fallback_are_in_hbm():
    sign, log = torch.empty(0, device="chip"), torch.empty(0, device="chip")
    torch.linalg.slogdet(torch.eye(3).expand(2, 3, 3).to("chip"), out=(sign, log))
    assert sign.tolist() == [1, 1] and log.tolist() == [0, 0]
    assert in_hbm(sign) and in_hbm(log)


def test_in_place_fallbacks_write_the_chips_own_memory():
    values = torch.zeros(5).to("chip")
    address = values.data_ptr()
    values.put_(torch.tensor([1, 3]).to("chip"), torch.tensor([7.0, 8.0]).to("chip"))
    assert values.tolist() == [0, 7, 0, 8, 0] and values.data_ptr() == address


def test_the_error_policy_names_the_operator():
    values = torch.randn(4, 4).to("chip")
    chip_device.set_fallback("error")
    with pytest.raises(NotImplementedError, match=r"aten::linalg_qr.out has no kernel for the chip") as error:
        torch.linalg.qr(values)
    assert "TAPEOUT_FALLBACK=error" in str(error.value)
    with pytest.raises(NotImplementedError, match=r"torch.complex64 is no type of the chip"):
        torch.ones(2, dtype=torch.complex64).to("chip").exp()


def test_views_and_copies_are_no_fallbacks():
    chip_device.set_fallback("error")
    values = torch.arange(12.0).to("chip").view(3, 4)
    assert values.t()[1:, :2].contiguous().cpu().tolist() == [[1, 5], [2, 6], [3, 7]]
    counts = ledger.snapshot()
    assert counts.on_host == {}
    assert (counts.host_to_chip_bytes, counts.chip_to_host_bytes) == (48, 24)


def test_the_warn_policy_warns_once():
    chip_device.set_fallback("warn")
    values = torch.randn(4, 4).to("chip")
    with pytest.warns(UserWarning, match="aten::linalg_qr.* has no kernel for the chip and runs on the host"):
        torch.linalg.qr(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.linalg.qr(values)


def test_an_unknown_policy_is_refused():
    with pytest.raises(
        TapeoutError, match=r"TAPEOUT_FALLBACK='never' is not a policy; choose one of count, warn, error"
    ):
        chip_device.set_fallback("never")
