"""Cross-entropy and its gradient against the CPU: one kernel for what is common, composed for all else."""

import pytest
import torch
from torch.nn import functional

from tapeout.pytorch import ledger


def both(function, logits, target, gradient_dtype=None):
    """Loss and gradient of the logits on the chip and, in float32 or what the logits are, on the CPU."""
    found = []
    for device in ("chip", "cpu"):
        x = logits.to(device) if device == "chip" else logits.to(gradient_dtype or logits.dtype)
        x = x.detach().requires_grad_()
        loss = function(x, target.to(device))
        loss.backward(torch.full_like(loss, 1.5))
        found.append((loss.detach().cpu(), x.grad.cpu()))
    return zip(*found, strict=True)


def logits_and_target(rows, columns, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, columns, (rows,), generator=generator)
    target[rows // 2] = -100
    return (torch.randn(rows, columns, generator=generator) * 3).to(dtype), target


@pytest.mark.parametrize(("rows", "columns"), [(65, 33), (16, 10001)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient(rows, columns, reduction, smoothing):
    def loss(x, t):
        return functional.cross_entropy(x, t, reduction=reduction, label_smoothing=smoothing)

    ledger.reset()
    for chip, cpu in both(loss, *logits_and_target(rows, columns)):
        torch.testing.assert_close(chip, cpu, rtol=2e-5, atol=2e-6 * cpu.abs().max().item())
    calls = dict(ledger.snapshot().on_chip)
    assert calls["aten::cross_entropy_loss"] == calls["aten::cross_entropy_loss_backward"] == 1
    assert "aten::_log_softmax" not in calls


def test_half_types_round_once():
    logits, target = logits_and_target(70, 1000, torch.bfloat16)
    for chip, cpu in both(functional.cross_entropy, logits, target, torch.float32):
        torch.testing.assert_close(chip.float(), cpu, rtol=2**-8, atol=1e-9)


def test_infinities_and_an_ignored_batch():
    logits, target = logits_and_target(32, 40)
    logits[:, 3] = -torch.inf
    logits[5] += 3e4
    target[target == 3] = 4
    for chip, cpu in both(functional.cross_entropy, logits, target):
        torch.testing.assert_close(chip, cpu, rtol=2e-5, atol=1e-7)
    for chip, cpu in both(functional.cross_entropy, logits, torch.full_like(target, -100)):
        torch.testing.assert_close(chip, cpu, equal_nan=True)


def test_a_target_out_of_range_raises_the_hosts_error():
    logits, target = logits_and_target(32, 40)
    target[1] = 40
    with pytest.raises(IndexError, match="Target 40 is out of bounds"):
        functional.cross_entropy(logits.to("chip"), target.to("chip"))


def test_other_forms_stay_composed():
    logits, target = logits_and_target(32, 40)
    images = logits.view(2, 16, 40).movedim(2, 1)
    for chip, cpu in both(functional.cross_entropy, images, target.view(2, 16)):
        torch.testing.assert_close(chip, cpu)


def test_second_derivatives_and_inference_mode():
    logits, target = logits_and_target(16, 20)
    found = []
    for device in ("chip", "cpu"):
        x = logits.to(device).requires_grad_()
        slope = torch.autograd.grad(functional.cross_entropy(x, target.to(device)), x, create_graph=True)[0]
        slope.square().sum().backward()
        with torch.inference_mode():
            found.append((x.grad.cpu(), functional.cross_entropy(x, target.to(device)).cpu()))
    for chip, cpu in zip(*found, strict=True):
        torch.testing.assert_close(chip, cpu)


def test_compiled_it_is_traced_as_torch_composes_it():
    logits, target = logits_and_target(32, 40)
    compiled = torch.compile(functional.cross_entropy, backend="aot_eager")
    for chip, cpu in both(compiled, logits, target):
        torch.testing.assert_close(chip, cpu)
