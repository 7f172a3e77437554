"""RMS norm, layer norm and their gradients against the CPU: rows that fit a tile, odd ones, and ones that do not."""

import pytest
import torch
from torch.nn import functional

from tapeout.pytorch import ledger

SHAPES = ((5, 7, 300), (64, 1024), (3, 40000))
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def results(kind, device, source, weight, bias, gradient):
    operands = [None if t is None else t.to(device).detach().clone().requires_grad_() for t in (source, weight, bias)]
    if kind == "rms_norm":
        out = functional.rms_norm(operands[0], source.shape[-1:], operands[1])
    else:
        out = functional.layer_norm(operands[0], source.shape[-1:], operands[1], operands[2])
    out.backward(gradient.to(device))
    found = [out, *(t.grad for t in operands if t is not None and t.grad is not None)]
    return [tensor.detach().cpu() for tensor in found]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["rms_norm", "layer_norm"])
def test_norms_and_gradients(kind, shape, dtype):
    generator = torch.Generator().manual_seed(0)
    source, gradient = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    weight, bias = (torch.randn(shape[-1], generator=generator).to(dtype) for _ in range(2))
    for own_weight, own_bias in ((weight, bias), (weight, None), (None, None)):
        given = (source, own_weight, own_bias, gradient)
        for chip, cpu in zip(results(kind, "chip", *given), results(kind, "cpu", *given), strict=True):
            scale = cpu.abs().max().item()
            torch.testing.assert_close(chip, cpu, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


def test_rms_norm_is_one_kernel_with_the_cpus_epsilon():
    x = torch.full((4, 64), 1e-4)
    on_chip = x.to("chip")
    ledger.reset()
    found = functional.rms_norm(on_chip, (64,))
    assert dict(ledger.snapshot().on_chip) == {"aten::_fused_rms_norm": 1}
    torch.testing.assert_close(found.cpu(), functional.rms_norm(x, (64,)))


@pytest.mark.parametrize("of_statistics", [torch.float32, None], ids=["float32 statistics", "own statistics"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_running_statistics_are_written_once(dtype, of_statistics):
    """Also of half types, whose operators are compiled for float32."""
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1)).to(dtype) + 1

    def statistics(device):
        layer = torch.nn.BatchNorm1d(4, affine=False).to(device).to(of_statistics or dtype)
        for _ in range(2):
            layer(x.to(device))
        return layer.running_mean.cpu(), layer.running_var.cpu()

    tolerance = 1e-2 if (of_statistics or dtype) is torch.bfloat16 else 2e-3
    torch.testing.assert_close(statistics("chip"), statistics("cpu"), rtol=tolerance, atol=0)
