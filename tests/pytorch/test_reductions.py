"""Reductions over any dimensions, and places of the largest, against the CPU."""

import pytest
import torch


def test_sums_means_and_extrema_over_any_dimensions():
    x = torch.randn(5, 33, 7, 37, generator=torch.Generator().manual_seed(0))
    on_chip = x.to("chip")
    for name, dims in (
        ("sum", (1,)),
        ("sum", (0, 2)),
        ("sum", (1, 3)),
        ("mean", (1, 2)),
        ("amax", (1,)),
        ("sum", (2,)),
    ):
        found, expected = getattr(on_chip, name)(dims).cpu(), getattr(x, name)(dims)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    part = (slice(None), slice(1, 30))
    torch.testing.assert_close(on_chip[part].sum(1).cpu(), x[part].sum(1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dim", [0, 1])
def test_the_first_of_equals_is_the_place_of_the_largest(dtype, dim):
    x = (torch.randn(37, 1000, generator=torch.Generator().manual_seed(0)) * 3).round().to(dtype)
    x[0] = -torch.inf
    x[1], x[1, 1::2] = -0.0, 0.0
    x[2, 700:] = torch.nan
    x[3, 5], x[:, 6] = torch.inf, -torch.inf
    values, places = x.to("chip").max(dim)
    expected = x.max(dim)
    assert torch.equal(places.cpu(), expected.indices)
    torch.testing.assert_close(values.cpu(), expected.values, rtol=0, atol=0, equal_nan=True)
