"""Elementwise operators: arithmetic, comparison, logic, functions, copies, casts and fills, for tensors of any strides.

One kernel serves them all. It takes up to three operands, each a tensor broadcast to the output's shape or a number,
computes in the type PyTorch computes in (half types in float32) and rounds once. Which operator it is, is a constant.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from tapeout import chip as chips
from tapeout.pytorch.ops import scalars
from tapeout.pytorch.ops.launch import (
    INTEGERS,
    POINTER,
    Launch,
    ceil_div,
    count,
    kernel,
    otherwise,
    refuse_as_the_host_does,
)
from tapeout.pytorch.ops.tiles import elementwise_tile

MAX_DIMENSIONS = 5

Operand = torch.Tensor | float | int | bool

TRITON_DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.int64: tl.int64,
    torch.int32: tl.int32,
    torch.int16: tl.int16,
    torch.int8: tl.int8,
    torch.uint8: tl.uint8,
    torch.bool: tl.int1,
}
COMPUTE_DTYPES = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


@triton.jit
def _at_least(a, bound):
    """A NaN among the two is the result; of two zeros it is `a`."""
    return tl.where((a < bound) | (bound != bound), bound, a)


@triton.jit
def _at_most(a, bound):
    return tl.where((a > bound) | (bound != bound), bound, a)


@triton.jit
def _function(OP: tl.constexpr, a, b, c, number):
    if OP == "copy":
        return a
    elif OP == "add":
        return a + b
    elif OP == "add_scaled":
        return a + b * number
    elif OP == "sub":
        return a - b
    elif OP == "sub_scaled":
        return a - b * number
    elif OP == "addcmul":
        return a + number * b * c
    elif OP == "addcdiv":
        return a + number * b / c
    elif OP == "lerp_from_start":
        return a + number * (b - a)
    elif OP == "lerp_from_end":
        return b - number * (b - a)
    elif OP == "mul":
        return a * b
    elif OP == "div":
        return a / b
    elif OP == "maximum":
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "minimum":
        return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "eq":
        return a == b
    elif OP == "ne":
        return a != b
    elif OP == "lt":
        return a < b
    elif OP == "le":
        return a <= b
    elif OP == "gt":
        return a > b
    elif OP == "ge":
        return a >= b
    elif OP == "and":
        return a & b
    elif OP == "or":
        return a | b
    elif OP == "xor":
        return a ^ b
    elif OP == "not":
        return ~a
    elif OP == "is_zero":
        return a == 0
    elif OP == "neg":
        # Triton's -a is 0 - a, which loses the sign of a zero.
        return a * -1 if a.dtype.is_floating() else 0 - a
    elif OP == "abs":
        return tl.abs(a)
    elif OP == "square":
        return a * a
    elif OP == "cube":
        return a * a * a
    elif OP == "reciprocal":
        return 1.0 / a
    elif OP == "sqrt":
        return tl.sqrt(a)
    elif OP == "rsqrt":
        return tl.rsqrt(a)
    elif OP == "exp":
        return tl.exp(a)
    elif OP == "log":
        return tl.log(a)
    elif OP == "sin":
        return tl.sin(a)
    elif OP == "cos":
        return tl.cos(a)
    elif OP == "sigmoid":
        return 1.0 / (1.0 + tl.exp(-a))
    elif OP == "silu":
        return a / (1.0 + tl.exp(-a))
    elif OP == "erf":
        return tl.erf(a)
    elif OP == "gelu":
        return 0.5 * a * (1.0 + tl.erf(a * 0.7071067811865476))
    elif OP == "gelu_tanh":
        inner = 0.7978845608028654 * (a + 0.044715 * a * a * a)
        return a / (1.0 + tl.exp(-2.0 * inner))
    elif OP == "tanh":
        return libdevice.tanh(a)
    elif OP == "where":
        return tl.where(a, b, c)
    elif OP == "clamp":
        return _at_most(_at_least(a, b), c)
    elif OP == "clamp_min":
        return _at_least(a, b)
    elif OP == "clamp_max":
        return _at_most(a, b)
    elif OP == "relu":
        return tl.where(a < 0, tl.zeros_like(a), a)
    else:
        tl.static_assert(False, "no such elementwise operator")


@triton.jit
def _cast(value, TYPE: tl.constexpr):
    """Cast as torch does on a CPU: a float that is no number of the integer type becomes its least one, or, of the
    types that are cut from a wider one, the low bits of the wider type's."""
    if value.dtype == TYPE:
        return value
    elif TYPE == tl.int1:  # noqa: SIM300
        return value != 0
    elif value.dtype.is_floating() and TYPE.is_int():
        WIDE: tl.constexpr = tl.int64 if TYPE == tl.int64 or TYPE == tl.uint8 else tl.int32  # noqa: SIM300
        END: tl.constexpr = 2.0 ** (WIDE.primitive_bitwidth - 1)
        real = value if value.dtype == tl.float64 else value.to(tl.float32)
        exists = (real >= -END) & (real < END)
        least = tl.full((), -(1 << (WIDE.primitive_bitwidth - 1)), WIDE)
        return tl.where(exists, real.to(WIDE), least).to(TYPE)
    else:
        return value.to(TYPE)


@triton.jit
def _operand(
    source, start, row, row_stride, column, column_stride, rows, columns,
    IS_TENSOR: tl.constexpr, REPEATED: tl.constexpr, CAST: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """A tile of an operand, or one "column" or "row" of it that is the same as all others (REPEATED)."""
    if IS_TENSOR:
        if REPEATED == "column":
            value = tl.load(source + start + row * row_stride, mask=row < rows)
        elif REPEATED == "row":
            value = tl.load(source + start + column * column_stride, mask=column < columns)
        else:
            inside = (row < rows) & (column < columns)
            value = tl.load(source + start + row * row_stride + column * column_stride, mask=inside)
        return _cast(value, CAST).to(COMPUTE)
    else:
        return source.to(COMPUTE)


@triton.jit
def _elementwise(
    out, a, b, c, number,
    n0, n1, n2, n3,
    o0, o1, o2, o3, o4,
    a0, a1, a2, a3, a4,
    b0, b1, b2, b3, b4,
    c0, c1, c2, c3, c4,
    OP: tl.constexpr, INPUTS: tl.constexpr,
    A_TENSOR: tl.constexpr, B_TENSOR: tl.constexpr, C_TENSOR: tl.constexpr,
    A_REPEATED: tl.constexpr, B_REPEATED: tl.constexpr, C_REPEATED: tl.constexpr,
    A_CAST: tl.constexpr, CAST: tl.constexpr, COMPUTE: tl.constexpr, A_COMPUTE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Dimension 0 is the innermost. A program does a tile of dimensions 1 and 0 at one place of 2, 3 and 4."""
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    outer = tl.program_id(2).to(tl.int64)
    i2 = outer % n2
    i3 = outer // n2 % n3
    i4 = outer // (n2 * n3)
    inside = (row < n1) & (column < n0)
    x = _operand(a, i2 * a2 + i3 * a3 + i4 * a4, row, a1, column, a0, n1, n0, A_TENSOR, A_REPEATED, A_CAST, A_COMPUTE)
    y = x
    z = x
    if INPUTS >= 2:
        y = _operand(b, i2 * b2 + i3 * b3 + i4 * b4, row, b1, column, b0, n1, n0, B_TENSOR, B_REPEATED, CAST, COMPUTE)
    if INPUTS >= 3:
        z = _operand(c, i2 * c2 + i3 * c3 + i4 * c4, row, c1, column, c0, n1, n0, C_TENSOR, C_REPEATED, CAST, COMPUTE)
    value = _function(OP, x, y, z, number.to(COMPUTE))
    value = tl.broadcast_to(_cast(value, out.dtype.element_ty), (ROWS, COLUMNS))
    tl.store(out + i2 * o2 + i3 * o3 + i4 * o4 + row * o1 + column * o0, value, mask=inside)


Described = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""A tensor but for its address: shape, strides, dtype."""


@dataclass(frozen=True)
class Plan:
    """A launch that lacks only the addresses and the numbers."""

    launch: Launch
    grid: tuple[int, int, int]
    sizes_and_strides: tuple[int, ...]
    compute: torch.dtype


EXACT_NUMBERS = ("mul", "div")
"""Operators that take their number unrounded, though the tensor beside it is of a half type."""


def elementwise(
    name: str,
    out: torch.Tensor,
    *inputs: Operand,
    common: torch.dtype,
    first: torch.dtype | None = None,
    number: float = 0,
) -> bool:
    """out = name(*inputs), the inputs cast to `common` (the first to `first`, if given). False: not for this kernel,
    which does not have one of the types.

    `number` is one more, in the type that is computed in, for what takes one that is no operand.
    """
    descriptions = [
        (value.shape, value.stride(), value.dtype) if isinstance(value, torch.Tensor) else None for value in inputs
    ]
    here = chips.active_serial()
    plan = _plan(name, (out.shape, out.stride(), out.dtype), tuple(descriptions), common, first or common, here)
    if plan is None:
        return False
    if isinstance(plan, Slices):
        return all(
            [elementwise(name, *part, common=common, first=first, number=number) for part in plan.of(out, inputs)]
        )
    if 0 not in plan.grid:
        words = [out.data_ptr()]
        for place, value in enumerate(inputs):
            if isinstance(value, torch.Tensor):
                words.append(value.data_ptr())
            else:
                own = plan.compute if name in EXACT_NUMBERS else common if place or first is None else first
                words.append(scalars.word(scalars.operand(value, own), plan.compute))
        words += (0,) * (3 - len(inputs))
        words.append(scalars.word(number, plan.compute))
        plan.launch(plan.grid, (*words, *plan.sizes_and_strides))
    return True


@dataclass(frozen=True)
class Slices:
    """Iteration over more dimensions than a launch has: one launch, or more, for each place of one dimension."""

    dimension: int

    def of(self, out: torch.Tensor, inputs: tuple[Operand, ...]) -> Iterator[tuple[torch.Tensor, *tuple[Operand, ...]]]:
        whole = [value.expand(out.shape) if isinstance(value, torch.Tensor) else value for value in inputs]
        for place in range(out.shape[self.dimension]):
            parts = (v.select(self.dimension, place) if isinstance(v, torch.Tensor) else v for v in whole)
            yield (out.select(self.dimension, place), *parts)


@functools.lru_cache(maxsize=4096)
def _plan(
    name: str,
    out: Described,
    inputs: tuple[Described | None, ...],
    common: torch.dtype,
    first: torch.dtype,
    chip_identity: int,
) -> Plan | Slices | None:
    """Shapes repeat, so what follows from them is worked out once."""
    shape, out_strides, out_dtype = out
    tensors = [value for value in inputs if value is not None]
    if any(dtype not in TRITON_DTYPES for dtype in (out_dtype, common, *(tensor[2] for tensor in tensors))):
        return None
    broadcast = [_broadcast_strides(tensor[0], tensor[1], shape) for tensor in tensors]
    sizes, strides = collapsed(shape, [out_strides, *broadcast])
    sizes, strides, is_turned = _with_best_rows(sizes, strides)
    if len(sizes) > MAX_DIMENSIONS:
        return Slices(min((size, dimension) for dimension, size in enumerate(shape) if size > 1)[1])
    padding = (0,) * (MAX_DIMENSIONS - len(sizes))
    sizes = sizes + (1,) * len(padding)
    compute = COMPUTE_DTYPES.get(common, common)
    types, steps = [POINTER[out_dtype]], [*strides[0], *padding]
    remaining = iter(strides[1:])
    is_repeated = []
    for value in (*inputs, *(None,) * (3 - len(inputs))):
        types.append(SCALAR_TYPES[compute] if value is None else POINTER[value[2]])
        own = (0,) * MAX_DIMENSIONS if value is None else (*next(remaining), *padding)
        steps += own
        is_repeated.append("" if value is None or all(own[:2]) else "row" if own[0] else "column")
    largest = max(tensor[2].itemsize for tensor in (out, *tensors))
    rows, columns = elementwise_tile(chips.active(), sizes, largest, is_turned)
    is_tensor = [value is not None for value in inputs] + [False] * (3 - len(inputs))
    launch = kernel(
        _elementwise,
        (*types, SCALAR_TYPES[compute], *INTEGERS[:24]),
        OP=name,
        INPUTS=len(inputs),
        A_TENSOR=is_tensor[0],
        B_TENSOR=is_tensor[1],
        C_TENSOR=is_tensor[2],
        A_REPEATED=is_repeated[0],
        B_REPEATED=is_repeated[1],
        C_REPEATED=is_repeated[2],
        A_CAST=TRITON_DTYPES[first],
        CAST=TRITON_DTYPES[common],
        COMPUTE=TRITON_DTYPES[compute],
        A_COMPUTE=TRITON_DTYPES[COMPUTE_DTYPES.get(first, first)],
        ROWS=rows,
        COLUMNS=columns,
    )
    grid = (ceil_div(sizes[0], columns), ceil_div(sizes[1], rows), sizes[2] * sizes[3] * sizes[4])
    return Plan(launch, grid, (*sizes[:4], *steps), compute)


def _broadcast_strides(shape: tuple[int, ...], strides: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """Strides that repeat a tensor over the target's shape."""
    missing = len(target) - len(shape)
    repeated = zip(shape, strides, target[missing:], strict=True)
    return (0,) * missing + tuple(0 if own != wanted else stride for own, stride, wanted in repeated)


def collapsed(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The same elements in as few dimensions as possible, innermost first, ordered by the first operand's strides."""
    order = [dimension for dimension in range(len(shape)) if shape[dimension] != 1]
    order.sort(key=lambda dimension: (strides[0][dimension], -dimension))
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for dimension in order:
        size = shape[dimension]
        steps = [stride[dimension] for stride in strides]
        if sizes and all(m[-1] * sizes[-1] == step for m, step in zip(merged, steps, strict=True)):
            sizes[-1] *= size
        else:
            sizes.append(size)
            for m, step in zip(merged, steps, strict=True):
                m.append(step)
    if not sizes:
        return (1,), [(0,)] * len(strides)
    return tuple(sizes), [tuple(m) for m in merged]


def _with_best_rows(
    sizes: tuple[int, ...], strides: list[tuple[int, ...]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]], bool]:
    """The same with another dimension in second place, whose elements are a tile's rows: one along which an operand
    lies in memory that does not do so along the first (then the last result is True), or else the longest."""
    inner = range(1, len(sizes))
    turned = [d for d in inner for own in strides[1:] if own[d] == 1 and own[0] not in (0, 1) and sizes[d] > 1]
    best = turned[0] if turned else max(inner, key=lambda d: sizes[d], default=0)
    order = [0, best, *(d for d in inner if d != best)] if best else list(range(len(sizes)))
    moved = [tuple(own[d] for d in order) for own in strides]
    return tuple(sizes[d] for d in order), moved, bool(turned)


SCALAR_TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.int64: "i64",
    torch.int32: "i64",
    torch.int16: "i64",
    torch.int8: "i64",
    torch.uint8: "i64",
    torch.bool: "i64",
}


# ---------------------------------------------------------------------------------------------- aten

Function = Callable[..., torch.Tensor]


def _number(value: Operand) -> Operand:
    """A CPU tensor of one element may stand for a number wherever an operand may."""
    return value.item() if isinstance(value, torch.Tensor) and value.device.type == "cpu" else value


def _element(value: Operand, dtype: torch.dtype) -> Operand:
    """Return what is stored as it stands: a number must fit the type. A tensor on the chip is cast there."""
    value = _number(value)
    return value if isinstance(value, torch.Tensor) else scalars.element(value, dtype)


def _fit(out: torch.Tensor, *operands: Operand) -> None:
    """Give an out= tensor of another shape the result's."""
    shapes = [operand.shape for operand in operands if isinstance(operand, torch.Tensor)]
    shape = [1] * max(map(len, shapes))  # torch.broadcast_shapes takes longer than a launch
    for other in shapes:
        for dimension, size in enumerate(reversed(other)):
            if size != 1:
                shape[-1 - dimension] = size
    if out.shape != tuple(shape):
        out.resize_(shape)


def _run(operator: Any, name: str, out: torch.Tensor, *inputs: Operand, common: torch.dtype, **options: Any) -> bool:
    """Runs and counts, or says that the host must."""
    done = elementwise(name, out, *map(_number, inputs), common=common, **options)
    if done:
        count(operator._schema.name)
    return done


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def _of_bits(function: Function, operator: Any) -> Function:
    """The function, which refuses numbers of floating point as the host does."""

    def run(self: torch.Tensor, *others: Operand, out: torch.Tensor) -> torch.Tensor:
        if any(torch.is_tensor(value) and value.is_floating_point() for value in (self, *others)):
            refuse_as_the_host_does(operator, self, *others, out=out)
            raise NotImplementedError(f"{operator.name()} is not defined for numbers of floating point")
        return function(self, *others, out=out)

    return run


def _unary(operator: Any, name: str, floating: bool) -> Function:
    def run(self: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        _fit(out, self)
        common = _floating(self.dtype) if floating else self.dtype
        return out if _run(operator, name, out, self, common=common) else otherwise(operator, self, out=out)

    return run


def _binary(operator: Any, name: str, floating: bool = False) -> Function:
    def run(self: torch.Tensor, other: Operand, *, out: torch.Tensor) -> torch.Tensor:
        _fit(out, self, other)
        common = torch.result_type(self, other)
        common = _floating(common) if floating else common
        return (
            out if _run(operator, name, out, self, other, common=common) else otherwise(operator, self, other, out=out)
        )

    return run


def _scaled(operator: Any, name: str) -> Function:
    def run(self: torch.Tensor, other: Operand, *, alpha: float = 1, out: torch.Tensor) -> torch.Tensor:
        _fit(out, self, other)
        common = torch.result_type(self, other)
        kind = name if alpha == 1 else f"{name}_scaled"
        if alpha != 1 and common in TRITON_DTYPES:
            scalars.element(-alpha if name == "sub" else alpha, common)  # raises where the type cannot hold it
        if common == torch.bool:  # of which there are sums only, and alpha is a bool
            kind, other = "or", other if alpha else False
        if _run(operator, kind, out, self, other, common=common, number=alpha):
            return out
        return otherwise(operator, self, other, alpha=alpha, out=out)

    return run


def _logical(operator: Any, name: str) -> Function:
    def run(self: torch.Tensor, other: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        _fit(out, self, other)
        if _run(operator, name, out, self, other, common=torch.bool):
            return out
        return otherwise(operator, self, other, out=out)

    return run


aten = torch.ops.aten

add_out = _scaled(aten.add.out, "add")
sub_out = _scaled(aten.sub.out, "sub")


def rsub(self: torch.Tensor, other: torch.Tensor, *, alpha: float = 1) -> torch.Tensor:
    """Compute as a difference, which refuses truth values."""
    return torch.sub(other, self, alpha=alpha)


mul_out = _binary(aten.mul.out, "mul")
div_out = _binary(aten.div.out, "div", floating=True)
maximum_out = _binary(aten.maximum.out, "maximum")
minimum_out = _binary(aten.minimum.out, "minimum")
eq_tensor_out, eq_scalar_out = _binary(aten.eq.Tensor_out, "eq"), _binary(aten.eq.Scalar_out, "eq")
ne_tensor_out, ne_scalar_out = _binary(aten.ne.Tensor_out, "ne"), _binary(aten.ne.Scalar_out, "ne")
lt_tensor_out, lt_scalar_out = _binary(aten.lt.Tensor_out, "lt"), _binary(aten.lt.Scalar_out, "lt")
le_tensor_out, le_scalar_out = _binary(aten.le.Tensor_out, "le"), _binary(aten.le.Scalar_out, "le")
gt_tensor_out, gt_scalar_out = _binary(aten.gt.Tensor_out, "gt"), _binary(aten.gt.Scalar_out, "gt")
ge_tensor_out, ge_scalar_out = _binary(aten.ge.Tensor_out, "ge"), _binary(aten.ge.Scalar_out, "ge")
bitwise_and_out = _of_bits(_binary(aten.bitwise_and.Tensor_out, "and"), aten.bitwise_and.Tensor_out)
bitwise_or_out = _of_bits(_binary(aten.bitwise_or.Tensor_out, "or"), aten.bitwise_or.Tensor_out)
bitwise_xor_out = _of_bits(_binary(aten.bitwise_xor.Tensor_out, "xor"), aten.bitwise_xor.Tensor_out)
bitwise_not_out = _of_bits(_unary(aten.bitwise_not.out, "not", floating=False), aten.bitwise_not.out)
logical_and_out = _logical(aten.logical_and.out, "and")
logical_or_out = _logical(aten.logical_or.out, "or")
logical_not_out = _unary(aten.logical_not.out, "is_zero", floating=False)
neg_out = _unary(aten.neg.out, "neg", floating=False)
abs_out = _unary(aten.abs.out, "abs", floating=False)
reciprocal_out = _unary(aten.reciprocal.out, "reciprocal", floating=True)
sqrt_out = _unary(aten.sqrt.out, "sqrt", floating=True)
rsqrt_out = _unary(aten.rsqrt.out, "rsqrt", floating=True)
exp_out = _unary(aten.exp.out, "exp", floating=True)
log_out = _unary(aten.log.out, "log", floating=True)
sin_out = _unary(aten.sin.out, "sin", floating=True)
cos_out = _unary(aten.cos.out, "cos", floating=True)
sigmoid_out = _unary(aten.sigmoid.out, "sigmoid", floating=True)
silu_out = _unary(aten.silu.out, "silu", floating=True)
tanh_out = _unary(aten.tanh.out, "tanh", floating=True)

erf_out = _unary(aten.erf.out, "erf", floating=True)


def gelu_out(self: torch.Tensor, *, approximate: str = "none", out: torch.Tensor) -> torch.Tensor:
    _fit(out, self)
    if approximate not in ("none", "tanh"):
        refuse_as_the_host_does(aten.gelu.out, self, approximate=approximate, out=out)
    name = "gelu" if approximate == "none" else "gelu_tanh"
    if _run(aten.gelu.out, name, out, self, common=self.dtype):
        return out
    return otherwise(aten.gelu.out, self, approximate=approximate, out=out)


def _three(operator: Any, name: str) -> Function:
    """self + value * tensor1 * tensor2, or with a quotient, rounded once."""

    def run(
        self: torch.Tensor, tensor1: Operand, tensor2: Operand, *, value: float = 1, out: torch.Tensor
    ) -> torch.Tensor:
        _fit(out, self, tensor1, tensor2)
        common = self.dtype
        for tensor in (tensor1, tensor2):
            common = torch.promote_types(common, torch.result_type(self, tensor))
        if _run(operator, name, out, self, tensor1, tensor2, common=common, number=value):
            return out
        return otherwise(operator, self, tensor1, tensor2, value=value, out=out)

    return run


addcmul_out = _three(aten.addcmul.out, "addcmul")
addcdiv_out = _three(aten.addcdiv.out, "addcdiv")


def lerp_out(self: torch.Tensor, end: torch.Tensor, weight: float, *, out: torch.Tensor) -> torch.Tensor:
    """Interpolate from self to end, exact at both."""
    _fit(out, self, end)
    name, number = ("lerp_from_start", weight) if abs(weight) < 0.5 else ("lerp_from_end", 1 - weight)
    if _run(aten.lerp.Scalar_out, name, out, self, end, common=self.dtype, number=number):
        return out
    return otherwise(aten.lerp.Scalar_out, self, end, weight, out=out)


def isneginf_out(self: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    _fit(out, self)
    if self.is_floating_point() and _run(aten.isneginf.out, "eq", out, self, float("-inf"), common=self.dtype):
        return out
    return otherwise(aten.isneginf.out, self, out=out)


POWERS = {0.5: "sqrt", -0.5: "rsqrt", 1: "copy", -1: "reciprocal", 2: "square", 3: "cube"}


def pow_out(self: torch.Tensor, exponent: float, *, out: torch.Tensor) -> torch.Tensor:
    operator = aten.pow.Tensor_Scalar_out
    _fit(out, self)
    exponent = scalars.operand(exponent, self.dtype) if self.dtype in COMPUTE_DTYPES else exponent
    name = POWERS.get(exponent)
    if name and self.is_floating_point() and _run(operator, name, out, self, common=self.dtype):
        return out
    return otherwise(operator, self, exponent, out=out)


def where(condition: torch.Tensor, self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    operator = aten.where.self
    common = torch.result_type(self, other)
    shape = torch.broadcast_shapes(condition.shape, self.shape, other.shape)
    out = torch.empty(shape, dtype=common, device="chip")
    if _run(operator, "where", out, condition, self, other, common=common, first=torch.bool):
        return out
    return otherwise(operator, condition, self, other)


def where_out(condition: torch.Tensor, self: torch.Tensor, other: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    _fit(out, condition, self, other)
    common = torch.result_type(self, other)
    if _run(aten.where.self_out, "where", out, condition, self, other, common=common, first=torch.bool):
        return out
    return otherwise(aten.where.self_out, condition, self, other, out=out)


def _triangle(operator: Any, name: str) -> Function:
    """The kept triangle is where a column index less a row index is on one side of the diagonal."""

    def run(self: torch.Tensor, diagonal: int = 0, *, out: torch.Tensor) -> torch.Tensor:
        if self.dtype not in TRITON_DTYPES or self.numel() == 0:
            return otherwise(operator, self, diagonal, out=out)
        _fit(out, self)
        rows = torch.arange(self.shape[-2], device="chip").unsqueeze(-1)
        columns = torch.arange(self.shape[-1], device="chip")
        kept = (columns - rows <= diagonal) if name == "tril" else (columns - rows >= diagonal)
        if _run(operator, "where", out, kept, self, 0, common=self.dtype, first=torch.bool):
            return out
        return otherwise(operator, self, diagonal, out=out)

    return run


tril_out = _triangle(aten.tril.out, "tril")
triu_out = _triangle(aten.triu.out, "triu")


def masked_fill_(self: torch.Tensor, mask: torch.Tensor, value: Operand) -> torch.Tensor:
    operator = aten.masked_fill_.Tensor if isinstance(value, torch.Tensor) else aten.masked_fill_.Scalar
    if mask.dtype != torch.bool or (isinstance(value, torch.Tensor) and value.dim()):
        refuse_as_the_host_does(operator, self, mask, value)
    filling = _element(value, self.dtype)
    if _run(operator, "where", self, mask, filling, self, common=self.dtype, first=torch.bool):
        return self
    return otherwise(operator, self, mask, value)


def clamp_out(
    self: torch.Tensor, min: float | None = None, max: float | None = None, *, out: torch.Tensor
) -> torch.Tensor:
    operator = aten.clamp.out
    _fit(out, self)
    bounds = [bound for bound in (min, max) if bound is not None]
    common = self.dtype
    for bound in bounds:
        common = torch.promote_types(common, torch.result_type(self, bound))
    if common != torch.bool and bounds:
        name = "clamp" if len(bounds) == 2 else "clamp_max" if min is None else "clamp_min"
        if _run(operator, name, out, self, *(_element(bound, common) for bound in bounds), common=common):
            return out
    return otherwise(operator, self, min, max, out=out)


def clamp_min_out(self: torch.Tensor, min: float, *, out: torch.Tensor) -> torch.Tensor:
    return clamp_out(self, min, out=out)


def clamp_max_out(self: torch.Tensor, max: float, *, out: torch.Tensor) -> torch.Tensor:
    return clamp_out(self, max=max, out=out)


def clamp_tensor(
    self: torch.Tensor, min: torch.Tensor | None = None, max: torch.Tensor | None = None, *, out: Any = None
) -> torch.Tensor:
    """Clamp by tensors, of which one of a single element may be the host's."""
    bounds = [bound for bound in (min, max) if bound is not None]
    common = functools.reduce(torch.promote_types, (torch.result_type(self, bound) for bound in bounds), self.dtype)
    if out is None:
        out = torch.empty((), dtype=common, device="chip")
    elif not torch.can_cast(common, out.dtype):
        raise RuntimeError(f"result type {common} can't be cast to the desired output type {out.dtype}")
    _fit(out, self, *bounds)
    name = "clamp" if len(bounds) == 2 else "clamp_max" if min is None else "clamp_min"
    if bounds and common != torch.bool and _run(aten.clamp.Tensor_out, name, out, self, *bounds, common=common):
        return out
    return otherwise(aten.clamp.Tensor_out, self, min, max, out=out)


def clamp_tensor_(self: torch.Tensor, min: torch.Tensor | None = None, max: torch.Tensor | None = None) -> torch.Tensor:
    return clamp_tensor(self, min, max, out=self)


def hardtanh(self: torch.Tensor, min_val: float = -1, max_val: float = 1) -> torch.Tensor:
    return clamp_out(self, min_val, max_val, out=torch.empty_like(self))


def hardtanh_(self: torch.Tensor, min_val: float = -1, max_val: float = 1) -> torch.Tensor:
    return clamp_out(self, min_val, max_val, out=self)


def relu(self: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(self)
    if self.dtype != torch.bool and _run(aten.relu.default, "relu", out, self, common=self.dtype):
        return out
    return otherwise(aten.relu.default, self)


def relu_(self: torch.Tensor) -> torch.Tensor:
    if self.dtype != torch.bool and _run(aten.relu_.default, "relu", self, self, common=self.dtype):
        return self
    return otherwise(aten.relu_.default, self)


# Storage types without arithmetic of their own; their bits are copied and filled as those of the signed type.
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def fill_scalar_(self: torch.Tensor, value: float) -> torch.Tensor:
    if self.dtype in SIGNED and isinstance(value, int):
        bits = 8 * self.itemsize
        wrapped = value % (1 << bits)
        fill_scalar_(self.view(SIGNED[self.dtype]), wrapped - (wrapped >> (bits - 1) << bits))
        return self
    if _run(aten.fill_.Scalar, "copy", self, _element(value, self.dtype), common=self.dtype):
        return self
    return otherwise(aten.fill_.Scalar, self, value)


def fill_tensor_(self: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if _run(aten.fill_.Tensor, "copy", self, value, common=self.dtype):
        return self
    return otherwise(aten.fill_.Tensor, self, value)


def scalar_tensor(
    s: scalars.Number, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
) -> torch.Tensor:
    """A number as the tensor that torch makes of it on a CPU: beyond a half type's range it is infinite there."""
    value = torch.scalar_tensor(s, dtype=dtype, device="cpu")
    out = torch.empty((), dtype=value.dtype, layout=layout, device=device)
    return fill_tensor_(out, value)


def zeros_with_memory(
    size: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
) -> torch.Tensor:
    """Return what autograd takes for a gradient known to be zero. Elsewhere it has no memory, which kernels would
    read."""
    return torch.zeros(size, dtype=dtype, device=device)


def zero_(self: torch.Tensor) -> torch.Tensor:
    return fill_scalar_(self, 0)


def copy_from(self: torch.Tensor, dst: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Return what copy_, to, contiguous and clone come down to. Copies from or to the host are the shim's."""
    between_chip_tensors = self.device.type == dst.device.type
    keeps_low_bits = not self.is_floating_point() and not self.is_complex() and self.itemsize >= dst.itemsize
    if dst.dtype in SIGNED and between_chip_tensors and keeps_low_bits:
        copy_from(self.view(SIGNED.get(self.dtype, self.dtype)), dst.view(SIGNED[dst.dtype]))
        return dst
    plain = not (self.is_conj() or self.is_neg() or dst.is_conj() or dst.is_neg())
    if between_chip_tensors and plain and elementwise("copy", dst, self, common=dst.dtype, first=self.dtype):
        count("aten::copy_")
        return dst
    return torch.ops.tapeout.copy_through_host(self, dst, non_blocking)


def cat_out(tensors: list[torch.Tensor], dim: int = 0, *, out: torch.Tensor) -> torch.Tensor:
    if any(tensor.dtype not in TRITON_DTYPES for tensor in tensors) or out.dtype not in TRITON_DTYPES:
        return otherwise(aten.cat.out, tensors, dim, out=out)
    parts = [tensor for tensor in tensors if tensor.shape != (0,)]  # torch ignores empty vectors of old
    if not parts:
        return out
    dim = dim % parts[0].dim()
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    if out.shape != tuple(shape):
        out.resize_(shape)
    start = 0
    for part in parts:
        length = part.shape[dim]
        if not elementwise("copy", out.narrow(dim, start, length), part, common=out.dtype, first=part.dtype):
            return otherwise(aten.cat.out, tensors, dim, out=out)
        start += length
    count("aten::cat")
    return out
