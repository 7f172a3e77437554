"""Tensors of many dimensions and of any place in memory: values as on the CPU, and channels stay last."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F


def patches(d):
    """Six dimensions of which no two merge."""
    return torch.arange(384.0).view(2, 3, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).to(d)


OF_SIX_DIMENSIONS = {
    "cat": lambda p: torch.cat([p, p.flip(0)]),
    "stack": lambda p: torch.stack([p, p.flip(0)], -1),
    "copy": lambda p: p.contiguous(),
    "add": lambda p: p + p.flip(2),
    "scaled add": lambda p: torch.add(p, p.flip(2), alpha=0.5),
    "where": lambda p: torch.where(p > 30, p, p.flip(1)),
    "masked fill": lambda p: p.masked_fill(p > 30, -1.0),
    "cast": lambda p: p.to(torch.int32),
    "assignment": lambda p: assign(torch.zeros(2, 2, 2, 4, 4, 3, device=p.device), p),
    "sum": lambda p: p.sum((1, 3)),
    "softmax": lambda p: p.softmax(2),
    "gather": lambda p: p.gather(3, torch.zeros_like(p).long()),
}


def assign(target, source):
    target[...] = source
    return target


@pytest.mark.parametrize("name", OF_SIX_DIMENSIONS)
def test_more_than_five_dimensions(name):
    function = OF_SIX_DIMENSIONS[name]
    torch.testing.assert_close(function(patches("chip")).cpu(), function(patches("cpu")))


def with_gradient(d, function):
    """Results and the gradient of an input with its channels last, with their strides."""
    torch.manual_seed(0)
    given = torch.randn(2, 4, 6, 6).to(d).contiguous(memory_format=torch.channels_last).requires_grad_()
    result = function(given)
    result.square().sum().backward()
    return [(tensor.stride(), tensor.detach().cpu()) for tensor in (result, given.grad)]


CHANNELS_LAST = {
    "convolution": lambda x: F.conv2d(x, torch.randn(3, 4, 3, 3).to(x.device)),
    "convolution by depth": lambda x: F.conv2d(x, torch.randn(4, 1, 3, 3).to(x.device), groups=4),
    "transposed convolution": lambda x: F.conv_transpose2d(x, torch.randn(4, 3, 3, 3).to(x.device)),
    "filters last too": lambda x: F.conv2d(x, torch.randn(3, 4, 3, 3).to(x.device, memory_format=torch.channels_last)),
    "group norm": lambda x: F.group_norm(x, 2, torch.ones(4).to(x.device), torch.ones(4).to(x.device)),
    "a network": lambda x: F.max_pool2d(F.relu(F.batch_norm(x, None, None, training=True)) + x, 2),
}


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_channels_stay_last(name):
    found, expected = (with_gradient(d, CHANNELS_LAST[name]) for d in ("chip", "cpu"))
    for (strides, values), (wanted, others) in zip(found, expected, strict=True):
        assert strides == wanted
        torch.testing.assert_close(values, others, rtol=1e-4, atol=1e-4)


def test_fused_optimizers_take_gradients_of_any_strides():
    def trained(d):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(1, 3, 3).to(d)
        gaps = torch.randn(6, 8).to(d)[:, ::2].requires_grad_()
        fused = d == "chip"
        optimizers = [
            torch.optim.AdamW(layer.parameters(), fused=fused),
            torch.optim.SGD([gaps], 0.1, 0.9, fused=fused),
        ]
        for _ in range(2):
            layer(torch.randn(2, 1, 6, 6).to(d)).square().sum().backward()
            gaps.grad = torch.randn(4, 6).to(d).t()
            for optimizer in optimizers:
                optimizer.step()
        return [tensor.detach().cpu() for tensor in (*layer.parameters(), gaps)]

    torch.testing.assert_close(trained("chip"), trained("cpu"), rtol=1e-4, atol=1e-5)


def test_operators_compiled_on_the_fly_in_inference_mode():
    def results(d):
        torch.manual_seed(0)
        with torch.inference_mode():
            x, index = torch.randn(3, 4).to(d), torch.tensor([[0, 1], [1, 2], [0, 0]]).to(d)
            expanded, image = torch.randn(3, 1).to(d).expand(3, 4), torch.randn(1, 2, 8, 8).to(d)
            found = (x.gather(1, index), expanded.gather(1, index), x.scatter(1, index, 1.0), F.max_pool2d(image, 2))
            return [tensor.cpu() for tensor in (*found, x.tan_())]

    torch.testing.assert_close(results("chip"), results("cpu"))


WITHOUT_PRODUCTS = """
import dataclasses, torch, torch.nn.functional as F
from tapeout import chip as chips
given = chips.load("tiny")
matrix = dataclasses.replace(given.core.matrix, {rate}=0)
chips.activate(dataclasses.replace(given, name="cut", core=dataclasses.replace(given.core, matrix=matrix)))
torch.manual_seed(0)
for dtype in (torch.float16, torch.float32):
    left, right = torch.randn(5, 7).to(dtype), torch.randn(7, 3).to(dtype)
    for one, other in ((left, right), (left[:1], right)):
        torch.testing.assert_close((one.to("chip") @ other.to("chip")).cpu(), one @ other, rtol=5e-3, atol=5e-3)
query = torch.randn(1, 2, 4, 8).half()
attend = lambda q: F.scaled_dot_product_attention(q, q, q)
torch.testing.assert_close(attend(query.to("chip")).cpu(), attend(query), rtol=5e-3, atol=5e-3)
"""


@pytest.mark.parametrize("rate", ["float16_rate", "float32_rate"])
def test_a_matrix_engine_without_a_type(rate):
    script = WITHOUT_PRODUCTS.format(rate=rate)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
