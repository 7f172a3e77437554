"""Convolutions of any size, stride, dilation and number of groups, and their gradients, against float64 on the host."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

FUNCTIONS = {
    1: (functional.conv1d, functional.conv_transpose1d),
    2: (functional.conv2d, functional.conv_transpose2d),
    3: (functional.conv3d, functional.conv_transpose3d),
}


@st.composite
def convolutions(draw):
    """Shapes and options of a convolution that has a result: (dimensions, input, weight, options, transposed)."""
    dimensions = draw(st.sampled_from([1, 2, 2, 2, 3]))
    transposed = draw(st.booleans())
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = (groups * draw(st.integers(1, 20 // groups)) for _ in range(2))
    sizes = [draw(st.integers(1, 14)) for _ in range(dimensions)]
    taps = [draw(st.integers(1, 5 if dimensions < 3 else 3)) for _ in range(dimensions)]
    stride, padding, dilation = (
        [draw(st.integers(low, high)) for _ in range(dimensions)] for low, high in ((1, 4), (0, 3), (1, 3))
    )
    reach = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)]
    if transposed:
        ends = [(n - 1) * s - 2 * p + r + 1 for n, s, p, r in zip(sizes, stride, padding, reach, strict=True)]
    else:
        ends = [n + 2 * p - r for n, p, r in zip(sizes, padding, reach, strict=True)]
    assume(min(ends) > 0)
    weight = (channels, outputs // groups, *taps) if transposed else (outputs, channels // groups, *taps)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return dimensions, (draw(st.integers(1, 3)), channels, *sizes), weight, options, transposed


@settings(max_examples=10, deadline=None)
@given(convolutions(), st.booleans(), st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_convolutions_and_their_gradients(convolution, is_last, has_bias, dtype):
    """Sums in float32 of a few hundred products of numbers near 1, rounded once to the type."""
    dimensions, shape, weight_shape, options, transposed = convolution
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(s, generator=generator).to(dtype) for s in (shape, weight_shape))
    outputs = weight_shape[1] * options["groups"] if transposed else weight_shape[0]
    bias = torch.randn(outputs, generator=generator).to(dtype) if has_bias else None
    if is_last and dimensions == 2:
        x = x.contiguous(memory_format=torch.channels_last)

    def results(device, type_):
        leaves = [t.detach().to(device, type_).requires_grad_() for t in (x, weight)]
        shift = None if bias is None else bias.to(device, type_)
        out = FUNCTIONS[dimensions][transposed](*leaves, shift, **options)
        gradient = torch.cos(torch.arange(out.numel(), dtype=torch.float32)).view(out.shape).to(dtype)
        out.backward(gradient.to(device, type_))
        return [t.detach().cpu().double() for t in (out, *(leaf.grad for leaf in leaves))]

    for found, expected in zip(results("chip", dtype), results("cpu", torch.float64), strict=True):
        rounding = 2**-8 if dtype == torch.bfloat16 else 2**-20
        torch.testing.assert_close(found, expected, rtol=rounding, atol=1e-5 * float(expected.abs().max() + 1))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_many_channels_and_pixels(form):
    """More than one tile of each, and sums that run side by side."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 150, 21, 37, generator=generator).contiguous(memory_format=form)
    weight = torch.randn(100, 150, 3, 3, generator=generator) / 30
    found = functional.conv2d(x.to("chip"), weight.to("chip"), padding=1, stride=2)
    assert found.is_contiguous(memory_format=form)
    expected = functional.conv2d(x.double(), weight.double(), padding=1, stride=2)
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_infinity_reaches_only_the_places_whose_taps_meet_it(bad):
    """Depthwise convolutions multiply whole rows by matrices that are mostly zero."""
    x, weight = torch.randn(2, 3, 9, 70), torch.randn(3, 1, 3, 3)
    x[0, 1, 4, 20] = x[-1, 0, 0, 69] = bad
    expected = functional.conv2d(x.double(), weight.double(), padding=1, groups=3)
    got = functional.conv2d(x.to("chip"), weight.to("chip"), padding=1, groups=3).cpu().double()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert 0 < (~got.isfinite()).sum() <= 15


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_operands_that_lie_anyhow_in_memory(groups, transposed):
    """Every second element, turned axes, one value for all: as views give them."""
    sizes = ((2, 4, 9, 11), (4, 4 // groups, 3, 2), (4,))
    wide = [torch.randn([2 * n for n in size]) for size in sizes]
    views = [tensor[tuple(slice(None, None, 2) for _ in tensor.shape)] for tensor in wide]
    turned = [torch.randn(size[::-1]).permute(*reversed(range(len(size)))) for size in sizes]
    same = [torch.randn(1).expand(size) for size in sizes]
    function = functional.conv_transpose2d if transposed else functional.conv2d
    for operands in (views, turned, same):
        expected = function(*(each.double() for each in operands), stride=(1, 2), groups=groups)
        on_chip = [torch.empty_strided(each.size(), each.stride(), device="chip") for each in operands]
        if operands is same:
            on_chip = [torch.empty(1, device="chip").copy_(each.flatten()[:1]).expand(each.shape) for each in operands]
        else:
            for place, each in zip(on_chip, operands, strict=True):
                place.copy_(each)
        got = function(*on_chip, stride=(1, 2), groups=groups).cpu().double()
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
