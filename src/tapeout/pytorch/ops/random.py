"""Random numbers: the n-th number of a seed is Philox's n-th, so equal seeds give equal numbers on any chip.

The generator (shim_hooks.cpp) keeps seed and place. Every element takes one place, whatever its type.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from tapeout.pytorch import graphs
from tapeout.pytorch.graphs import draw
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.elementwise import TRITON_DTYPES
from tapeout.pytorch.ops.launch import (
    INTEGERS,
    POINTER,
    ceil_div,
    count,
    kernel,
    otherwise,
    power_of_two_at_least,
    refuse_as_the_host_does,
)
from tapeout.runtime import session

TILE = 1024
MOST_CATEGORIES = 1 << 24  # as torch has it
# Bits of a uniform number, so that it is exact in its type and below one.
UNIFORM_BITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
# How bounds and parameters of a distribution are passed.
FLOAT_TYPE = {torch.float64: "fp64", torch.float32: "fp32"}

aten = torch.ops.aten


@triton.jit
def _words(seed, first, element):
    """Two independent 32-bit words for each element."""
    place = first + element
    low = (place & 0xFFFFFFFF).to(tl.uint32)
    high = (place >> 32).to(tl.uint32)
    zero = low * 0
    a, b, _, _ = tl.philox(seed, low, high, zero, zero)
    return a, b


@triton.jit
def _unit(a, b, BITS: tl.constexpr):
    """A number in [0, 1) with that many bits."""
    if BITS == 53:
        return ((a >> 5).to(tl.float64) * 67108864.0 + (b >> 6).to(tl.float64)) * (1.0 / 9007199254740992.0)
    else:
        return (a >> (32 - BITS)).to(tl.float32) * (1.0 / (1 << BITS))


@triton.jit
def _upper_half(a, b, factor):
    """The upper 64 of the 128 bits of a product: of `factor` and the number whose halves are `a` and `b`."""
    a, b = a.to(tl.uint64), b.to(tl.uint64)
    upper, lower = factor >> 32, factor & 0xFFFFFFFF
    middle = a * lower + (b * lower >> 32)
    return a * upper + (middle >> 32) + (b * upper + (middle & 0xFFFFFFFF) >> 32)


@triton.jit
def _draw(
    out, seed, first, size, low, high,
    KIND: tl.constexpr, BITS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """`low` and `high`: bounds, mean and deviation, or the one parameter, of the distribution `KIND`."""
    element = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    a, b = _words(seed, first, element)
    if KIND == "uniform":
        value = low + _unit(a, b, BITS) * (high - low)
        value = tl.where(value < high, value, low)
    elif KIND == "normal":
        radius = tl.sqrt(-2.0 * tl.log(1.0 - _unit(a, b, BITS)))
        value = low + high * radius * tl.cos(6.283185307179586 * _unit(b, a, BITS))
    elif KIND == "exponential":
        value = -tl.log(1.0 - _unit(a, b, BITS)) / low
    elif KIND == "bernoulli":
        value = _unit(a, b, 24) < low
    elif KIND == "integer":  # of fewer than 2**32
        value = low + ((a.to(tl.uint64) * high.to(tl.uint64)) >> 32).to(tl.int64)
    elif KIND == "long integer":
        value = low + _upper_half(a, b, high.to(tl.uint64)).to(tl.int64)
    else:  # the bits themselves, as many as `high` keeps
        value = low + ((a.to(tl.int64) << 32 | b.to(tl.int64)) & high)
    tl.store(out + element, value.to(out.dtype.element_ty), mask=element < size)


@triton.jit
def _dropout(source, out, mask, seed, first, size, kept, scale, TILE: tl.constexpr):
    element = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = element < size
    a, b = _words(seed, first, element)
    keep = _unit(a, b, 24) < kept
    value = tl.load(source + element, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + element, tl.where(keep, value * scale, 0.0).to(out.dtype.element_ty), mask=inside)
    tl.store(mask + element, keep, mask=inside)


@triton.jit
def _check_weights(weights, columns, least, COLUMNS: tl.constexpr):
    """Stops the launch if a row of weights is none, or fewer than `least` of it can be drawn."""
    row = tl.program_id(0).to(tl.int64)
    drawable = tl.zeros((COLUMNS,), tl.int64)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        weight = tl.load(weights + row * columns + column, mask=column < columns, other=0.0)
        tl.device_assert((weight >= 0) & (weight < float("inf")), "a weight is negative, infinite or NaN")
        drawable += (weight > 0).to(tl.int64)
    tl.device_assert(tl.sum(drawable) >= least, "too few weights above zero for so many samples")


def _fill(
    out: torch.Tensor, kind: str, low: float, high: float, generator: torch.Generator | None, bits: int = 24
) -> None:
    """Fill with numbers of one distribution, in the order of the elements."""
    if out.numel() == 0:
        return
    target = out if out.is_contiguous() else torch.empty(out.shape, dtype=out.dtype, device=out.device)
    seed, first = draw(generator, out.numel())
    integral = kind in ("integer", "long integer", "bits")
    real = torch.float64 if out.dtype == torch.float64 else torch.float32
    tile = min(TILE, power_of_two_at_least(out.numel()))
    launch = kernel(
        _draw,
        (POINTER[out.dtype], *INTEGERS[:3], *(("i64",) * 2 if integral else (FLOAT_TYPE[real],) * 2)),
        KIND=kind,
        BITS=bits,
        TILE=tile,
    )
    numbers = (int(low), _as_signed(int(high))) if integral else (scalars.word(low, real), scalars.word(high, real))
    launch((ceil_div(out.numel(), tile), 1, 1), (target.data_ptr(), seed, first, out.numel(), *numbers))
    if target is not out:
        out.copy_(target)


def _as_signed(word: int) -> int:
    """The 64-bit word as the integer that a kernel takes."""
    return word - (1 << 64) if word >> 63 else word


def uniform_(
    self: torch.Tensor, low: float = 0.0, high: float = 1.0, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    if self.dtype not in UNIFORM_BITS:
        return otherwise(aten.uniform_.default, self, low, high, generator=generator)
    if not 0 <= high - low <= torch.finfo(self.dtype).max:
        refuse_as_the_host_does(aten.uniform_.default, self, low, high)
    _fill(self, "uniform", low, high, generator, UNIFORM_BITS[self.dtype])
    count("aten::uniform_")
    return self


def normal_(
    self: torch.Tensor, mean: float = 0.0, std: float = 1.0, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    if self.dtype not in UNIFORM_BITS or std < 0:
        return otherwise(aten.normal_.default, self, mean, std, generator=generator)
    _fill(self, "normal", mean, std, generator, 53 if self.dtype == torch.float64 else 24)
    count("aten::normal_")
    return self


def normal_tensor_float(
    mean: torch.Tensor, std: float = 1.0, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    return _normal(aten.normal.Tensor_float, mean, mean, std, generator)


def normal_float_tensor(mean: float, std: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
    return _normal(aten.normal.float_Tensor, std, mean, std, generator)


def normal_tensor_tensor(
    mean: torch.Tensor, std: torch.Tensor, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    return _normal(aten.normal.Tensor_Tensor, mean, mean, std, generator)


def _normal(operator: Any, like: torch.Tensor, mean: Any, std: Any, generator: torch.Generator | None) -> torch.Tensor:
    """A number for each mean and deviation, in the type of `like`."""
    is_refused = not (like.is_floating_point() or like.is_complex())
    if not isinstance(std, torch.Tensor):
        is_refused = is_refused or std < 0
    elif not (session.timing_only or graphs.is_capturing()):  # then there are values to look at
        is_refused = is_refused or bool((std < 0).any())
    if is_refused:
        refuse_as_the_host_does(operator, mean, std)
    shape = torch.broadcast_shapes(*(each.shape for each in (mean, std) if isinstance(each, torch.Tensor)))
    drawn = torch.empty(shape, dtype=like.dtype, device=like.device)
    return normal_(drawn, generator=generator).mul_(std).add_(mean)


def exponential_(self: torch.Tensor, lambd: float = 1.0, *, generator: torch.Generator | None = None) -> torch.Tensor:
    if self.dtype not in UNIFORM_BITS or lambd <= 0:
        return otherwise(aten.exponential_.default, self, lambd, generator=generator)
    _fill(self, "exponential", lambd, 0.0, generator, 53 if self.dtype == torch.float64 else 24)
    count("aten::exponential_")
    return self


def geometric_(self: torch.Tensor, p: float, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return how many draws it takes until one succeeds: an exponential number rounded up."""
    if self.dtype not in TRITON_DTYPES or not 0 < p < 1:
        return otherwise(aten.geometric_.default, self, p, generator=generator)
    real = torch.float64 if self.dtype == torch.float64 else torch.float32
    drawn = torch.empty(self.shape, dtype=real, device=self.device)
    return self.copy_(exponential_(drawn, -math.log1p(-p), generator=generator).floor_().add_(1))


def log_normal_(
    self: torch.Tensor, mean: float = 1.0, std: float = 2.0, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    if self.dtype not in UNIFORM_BITS or std <= 0:
        return otherwise(aten.log_normal_.default, self, mean, std, generator=generator)
    return normal_(self, mean, std, generator=generator).exp_()


def cauchy_(
    self: torch.Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    if self.dtype not in UNIFORM_BITS or sigma <= 0:
        return otherwise(aten.cauchy_.default, self, median, sigma, generator=generator)
    return uniform_(self, -math.pi / 2, math.pi / 2, generator=generator).tan_().mul_(sigma).add_(median)


def rrelu_with_noise(
    self: torch.Tensor,
    noise: torch.Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """In training each negative element has a slope of its own, which `noise` keeps; it is 1 for the others."""
    if not training:
        return torch.nn.functional.leaky_relu(self, (lower + upper) / 2)
    drawn = uniform_(torch.empty_like(self), lower, upper, generator=generator)
    noise.copy_(torch.where(self <= 0, drawn, 1.0))
    return self * noise


def bernoulli_float_(self: torch.Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> torch.Tensor:
    if self.dtype not in TRITON_DTYPES or not 0 <= p <= 1:
        return otherwise(aten.bernoulli_.float, self, p, generator=generator)
    _fill(self, "bernoulli", p, 0.0, generator)
    count("aten::bernoulli_")
    return self


def bernoulli_tensor_(self: torch.Tensor, p: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
    if not p.dtype.is_floating_point:
        refuse_as_the_host_does(aten.bernoulli.default, p)
    drawn = torch.empty(self.shape, dtype=torch.float32, device=self.device)
    return self.copy_(uniform_(drawn, generator=generator) < p)


def bernoulli_out(self: torch.Tensor, *, generator: torch.Generator | None = None, out: torch.Tensor) -> torch.Tensor:
    if out.shape != self.shape:
        out.resize_(self.shape)
    return bernoulli_tensor_(out, self, generator=generator)


def random_from_(
    self: torch.Tensor, low: int, high: int | None, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Integers from low (included) to high (excluded; None: the type's largest included)."""
    if self.dtype not in TRITON_DTYPES:
        return otherwise(aten.random_.__getattr__("from"), self, low, high, generator=generator)
    top = _largest(self.dtype) + 1 if high is None else high
    if top <= low:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={top}")
    span = top - low
    if span & (span - 1) == 0:
        _fill(self, "bits", low, span - 1, generator)
    else:
        _fill(self, "integer" if span < 1 << 32 else "long integer", low, span, generator)
    count("aten::random_")
    return self


def random_to_(self: torch.Tensor, high: int, *, generator: torch.Generator | None = None) -> torch.Tensor:
    return random_from_(self, 0, high, generator=generator)


def random_(self: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
    return random_from_(self, 0, None, generator=generator)


def _largest(dtype: torch.dtype) -> int:
    """The largest integer up to which all are exact in the type."""
    if dtype.is_floating_point:
        return 1 << UNIFORM_BITS[dtype]
    return 1 if dtype == torch.bool else torch.iinfo(dtype).max


def native_dropout(self: torch.Tensor, p: float, train: bool | None) -> tuple[torch.Tensor, torch.Tensor]:
    if train is False or p == 0:
        return self.clone(), torch.ones_like(self, dtype=torch.bool)
    if self.dtype not in (torch.float32, torch.float16, torch.bfloat16) or p == 1:
        result: tuple[torch.Tensor, torch.Tensor] = otherwise(aten.native_dropout.default, self, p, train)
        return result
    source = self.contiguous()
    out, mask = torch.empty_like(source), torch.empty_like(source, dtype=torch.bool)
    if source.numel():
        seed, first = draw(None, source.numel())
        tile = min(TILE, power_of_two_at_least(source.numel()))
        launch = kernel(
            _dropout,
            (POINTER[source.dtype], POINTER[source.dtype], POINTER[torch.bool], *INTEGERS[:3], "fp32", "fp32"),
            TILE=tile,
        )
        addresses = (source.data_ptr(), out.data_ptr(), mask.data_ptr())
        numbers = (
            seed,
            first,
            source.numel(),
            scalars.word(1 - p, torch.float32),
            scalars.word(1 / (1 - p), torch.float32),
        )
        launch((ceil_div(source.numel(), tile), 1, 1), (*addresses, *numbers))
    count("aten::native_dropout")
    return out, mask


def randperm_generator_out(n: int, *, generator: torch.Generator | None = None, out: torch.Tensor) -> torch.Tensor:
    """The order of n random keys."""
    keys = random_from_(torch.empty(n, dtype=torch.int64, device="chip"), 0, 1 << 63, generator=generator)
    order: Any = keys.argsort(stable=True)
    if out.shape != (n,):
        out.resize_(n)
    return out.copy_(order)


def randperm_out(n: int, *, out: torch.Tensor) -> torch.Tensor:
    return randperm_generator_out(n, out=out)


def multinomial(
    self: torch.Tensor, num_samples: int, replacement: bool = False, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Indices drawn with these weights: the first to arrive, if index i arrives at the rate weights[i]."""
    categories = self.shape[-1] if self.dim() else 0
    enough = num_samples > 0 and (replacement or num_samples <= categories)
    if not (self.is_floating_point() and self.dim() in (1, 2) and enough and categories <= MOST_CATEGORIES):
        refuse_as_the_host_does(aten.multinomial.default, self, num_samples, replacement)
    weights = (self if self.dtype in (torch.float32, torch.float64) else self.float()).contiguous()
    columns = weights.shape[-1]
    check = kernel(
        _check_weights,
        (POINTER[weights.dtype], *INTEGERS[:2]),
        COLUMNS=min(TILE, power_of_two_at_least(columns)),
    )
    least = 1 if replacement else num_samples
    if weights.numel():
        check((weights.numel() // columns, 1, 1), (weights.data_ptr(), columns, least))
    if replacement and num_samples > 1:
        cumulative = weights.cumsum(-1)
        drawn = torch.empty((*self.shape[:-1], num_samples), dtype=weights.dtype, device=self.device)
        uniform_(drawn, generator=generator)
        found: torch.Tensor = torch.searchsorted(cumulative, drawn * cumulative[..., -1:], right=True)
        return found.clamp(max=self.shape[-1] - 1)
    arrival = exponential_(torch.empty_like(weights), generator=generator)
    if num_samples == 1:
        return (weights / arrival).argmax(-1, keepdim=True)
    return (weights / arrival).topk(num_samples, dim=-1).indices
