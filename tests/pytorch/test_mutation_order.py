"""Compiled programs that write into their inputs give what they give uncompiled: results and inputs.

The first group is made of Inductor's known faults, the second of what is next to them. Tensors take several programs
of a kernel, so that one program could read what another has written.
"""

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl

SIZE = 192


def matrix() -> torch.Tensor:
    return torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def row() -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(2))


def places() -> torch.Tensor:
    return torch.randperm(SIZE, generator=torch.Generator().manual_seed(3))


def small_matrices() -> torch.Tensor:
    return torch.randn(600, 5, 5, generator=torch.Generator().manual_seed(4))


CASES = []


def case(*inputs):
    def add(function):
        CASES.append(pytest.param(function, inputs, id=function.__name__))
        return function

    return add


@case(matrix)
def foreach_reads_flipped(x):
    torch._foreach_add_([x], [x.flip(0)])
    return x


@case(matrix, matrix)
def foreach_reads_flipped_of_scaled(x, y):
    torch._foreach_mul_([x, y], [(x * 2).t(), y + 1])
    return x + y


@case(matrix)
def scatter_then_add_flipped(x):
    x.index_put_((torch.arange(SIZE, device=x.device),), x * 2.0)
    x.add_(x.flip(0))
    return x


@case(small_matrices)
def copy_transposed(x):
    x.copy_(x.transpose(-1, -2) * 1.0)
    return x


@case(lambda: torch.arange(-12, 12).reshape(4, 6))
def read_as_another_type(x):
    y = x.view(torch.int32) * 2
    y.sub_(-4)
    x[:, 2:5] = 2
    return y.view(torch.int64)


@case(matrix, matrix)
def copy_then_add_to_the_source(target, source):
    target[0:, :] = source[0:, :] * 1
    target[0:, :] = source[0:, :]
    source.add_(1)
    return source


@case(matrix, matrix)
def scatter_then_zero(x, source):
    y = torch.slice_scatter(x, source[1:3], dim=0, start=1, end=3)
    x.zero_()
    return y


@case(matrix)
def scatter_of_what_is_there_then_fill(x):
    y = torch.diagonal_scatter(x, x.diagonal())
    x.fill_(2)
    return y


@case(matrix)
def clone_between_writes(x):
    x.index_fill_(0, torch.tensor([1, 3], device=x.device), 5.0)
    y = x.clone()
    x.clamp_(-0.5, 0.5)
    return y


@case(matrix)
def write_through_dropout(x):
    y = F.dropout(x, 0.5, training=False)
    y += y
    return x + 1


@case(matrix)
def write_through_dropout_of_nothing(x):
    F.dropout(x, 0.0, training=True).mul_(3)
    return x + 1


@case(matrix)
def shifted_rows(x):
    x[1:] = x[:-1].clone()
    return x


@case(matrix)
def shifted_columns(x):
    x[:, 1:] = x[:, :-1] + 1
    return x.sum(0)


@case(lambda: matrix().flatten())
def every_other_element(x):
    x.as_strided((SIZE, SIZE // 2), (SIZE, 2)).add_(1)
    return x * 2


@case(matrix)
def write_through_transposed_after_read(x):
    double = x.view(-1) * 2
    x.t().add_(torch.arange(SIZE, device=x.device))
    return double, x.view(-1) + 0


@case(matrix, places)
def read_then_scatter(x, at):
    y = x[at] * 2
    x[at] = 0
    return y


@case(matrix, places)
def scatter_own_rows(x, at):
    x[at] = x[0:].clone()
    return x


@case(lambda: torch.randperm(SIZE, generator=torch.Generator().manual_seed(5)))
def scatter_at_own_values(x):
    x[x[: SIZE // 2].clone()] = 7
    return x


@case(matrix, places)
def copy_own_rows_by_index(x, at):
    x.index_copy_(0, at, x * 2)
    x.add_(x.roll(1, 0))
    return x


@case(matrix, places)
def add_own_rows_by_index(x, at):
    x.scatter_add_(0, at[None].expand(SIZE, SIZE), x * 1.0)
    return x.flip(0)


@case(matrix)
def softmax_in_place(x):
    x.copy_(x.softmax(0))
    return x


@case(matrix)
def less_its_mean(x):
    mean = x.mean(0, keepdim=True)
    x.sub_(mean)
    return mean


@case(matrix, row, lambda: torch.tensor(2))
def selected_rows(x, values, at):
    x[3].copy_(x[5])
    x[7] = x[3] * 2
    x[at].copy_(values)
    x[at] = values
    return x


@case(matrix)
def swapped_rows(x):
    first = x[0].clone()
    x[0] = x[1]
    x[1] = first
    return x


@case(matrix)
def swapped_halves(x):
    x.copy_(torch.cat([x[SIZE // 2 :], x[: SIZE // 2]]))
    return x


@case(matrix, matrix)
def blended(x, y):
    x.lerp_(y, 0.1)
    difference = y - x
    x.mul_(2)
    return difference


@case(matrix)
def intermediate_as_another_type(x):
    y = x * 2
    z = y.view(torch.int16) * 3
    y[1:3] = 0
    return z, y


@case(matrix, matrix)
def exchanged(x, y):
    kept = x.clone()
    x.copy_(y)
    y.copy_(kept.t())
    return x


def agree(got, expected) -> bool:
    if isinstance(expected, tuple | list):
        return all(agree(*pair) for pair in zip(got, expected, strict=True))
    return torch.allclose(got.cpu(), expected, rtol=1e-5, atol=1e-6)  # sums are taken in another order


@pytest.mark.parametrize(("function", "inputs"), CASES)
def test_results_and_inputs(function, inputs):
    on_host = [make() for make in inputs]
    on_chip = [tensor.to("chip") for tensor in on_host]
    expected = function(*on_host)
    assert agree(torch.compile(function)(*on_chip), expected)
    assert agree(on_chip, on_host), "inputs"


def test_overlapping_inputs():
    """Two inputs that are views of one tensor."""

    def function(left, right):
        left.mul_(2)
        right.add_(left)
        return left + right

    on_host = row()
    on_chip = on_host.to("chip")
    expected = function(on_host[:-1], on_host[1:].clone())
    assert agree(torch.compile(function)(on_chip[:-1], on_chip[1:].clone()), expected)
    assert agree(on_chip, on_host)

    def shifted(left, right):
        right.copy_(left * 1)
        return right + 1

    expected = shifted(on_host[:-1], on_host[1:])
    assert agree(torch.compile(shifted)(on_chip[:-1], on_chip[1:]), expected)
    assert agree(on_chip, on_host)


@triton.jit
def reverse_kernel(source, target, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + count - 1 - at))


@torch.library.custom_op("tapeout_test::reverse_into", mutates_args=("target",))
def reverse_into(source: torch.Tensor, target: torch.Tensor) -> None:
    for place in range(len(source)):
        target[len(source) - 1 - place] = source[place]


def test_copies_for_kernels_and_operators_that_write():
    def function(x, y):
        reverse_kernel[(4,)](x.clone(), x, 256, BLOCK=64)
        reverse_into(y.clone(), y)
        return x * 2, y * 2

    values, few = torch.arange(256.0), torch.arange(8.0)
    on_chip = values.to("chip"), few.to("chip")
    expected = values.flip(0), few.flip(0)
    assert agree(torch.compile(function)(*on_chip), (expected[0] * 2, expected[1] * 2))
    assert agree(on_chip, expected)


def test_only_reads_in_the_way_are_copied():
    """A key-value cache is written where it lies."""
    from torch._inductor.utils import run_and_get_code

    def function(cache, at, new):
        cache.index_copy_(1, at, new)
        return cache.sum()

    cache, at, new = torch.zeros(2, 64, 8, device="chip"), torch.tensor([3], device="chip"), torch.ones(2, 1, 8)
    _, (code,) = run_and_get_code(torch.compile(function), cache, at, new.to("chip"))
    assert "empty_strided((2, 64, 8)" not in code
    assert cache[:, 3].cpu().equal(new[:, 0])
