"""Random Triton kernels whose tiles lie around the size of a scratchpad, each with what NumPy says it stores.

Every number in them is exact: floats hold integers so small that no operation rounds. A kernel is therefore right if
its stores are equal to NumPy's, whatever order the compiler adds in.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tapeout import runtime
from tapeout.chip import Chip
from tapeout.codegen.pipeline import compile_kernel
from tests.passes.kernels import ttir

TYPES = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "float16": np.float64,
    "bfloat16": np.float64,
    "float32": np.float64,
    "int1": np.bool_,
}
"""How NumPy holds each of Triton's types; floats as float64, which are checked to fit."""
LARGEST = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24}
"""Up to here each integer is a float of the type."""
SIZE_BYTES = {name: int(name.lstrip("abfilnotu") or 8) // 8 for name in TYPES} | {"int1": 1}
WEIGHTS = {"elementwise": 8, "rearrange": 4, "reduce": 3, "scan": 3, "join": 2, "loop": 2, "choose": 1}

HEADER = '''"""Random kernel of seed {seed}."""

import triton
import triton.language as tl


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def larger(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def affine(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def extremes(a1, b1, a2, b2):
    return tl.where(a1 < a2, a1, a2), tl.where(b1 > b2, b1, b2)


@triton.jit
def random_kernel({parameters}):
'''


class Unfit(Exception):
    """An operation that does not suit the values at hand; another is drawn."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A variable of the kernel and what it holds."""

    name: str
    dtype: str
    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def is_float(self) -> bool:
        return self.dtype in LARGEST


@dataclass
class RandomKernel:
    seed: int
    source: str
    inputs: dict[str, torch.Tensor]
    expected: dict[str, np.ndarray]
    programs: int

    def function(self, folder: Path):
        """The kernel, whose source is kept in a folder, as Triton asks for a file."""
        path = Path(folder, f"random_kernel_{self.seed}.py")
        path.write_text(self.source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.random_kernel

    def differences(self, folder: Path, chip: Chip) -> list[str]:
        """Compiles and runs the kernel for a chip; says what is not as it should be."""
        signature = " ".join(f"*{triton_name(tensor.dtype)}" for tensor in self.inputs.values())
        program = compile_kernel(ttir(self.function(folder), signature), chip)
        held = {name: tensor.clone() for name, tensor in self.inputs.items()}
        words = [tensor.data_ptr() for tensor in held.values()]
        runtime.load(program, chip).launch((self.programs, 1, 1), words)
        found = []
        for name, expected in self.expected.items():
            result = held[name]
            result = (result.double() if result.is_floating_point() else result).numpy().reshape(expected.shape)
            wrong = np.argwhere(result != expected)
            if len(wrong):
                place = tuple(map(int, wrong[0]))
                found.append(
                    f"{name}: {len(wrong)} of {expected.size} elements are wrong, the first at {place}: "
                    f"{result[place]}, want {expected[place]}"
                )
        return found


def triton_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    for long, short in (("bfloat", "bf"), ("float", "fp"), ("uint", "u"), ("int", "i")):
        name = name.replace(long, short)
    return name


@dataclass
class Writer:
    """Draws a kernel operation by operation; keeps its lines, its tiles and its arguments."""

    rng: np.random.Generator
    elements: int
    lines: list[str] = field(default_factory=list)
    pool: list[Tile] = field(default_factory=list)
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    expected: dict[str, np.ndarray] = field(default_factory=dict)
    indent: str = "    "
    count: int = 0
    programs: int = 1

    # ------------------------------------------------------------------ small tools

    def pick(self, items):
        items = list(items)
        if not items:
            raise Unfit
        return items[int(self.rng.integers(len(items)))]

    def maybe(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def tile(self, wanted: Callable[[Tile], bool] = lambda tile: True) -> Tile:
        """One of the tiles, the latest with more chance."""
        fit = [tile for tile in self.pool if wanted(tile)]
        if not fit:
            raise Unfit
        return fit[-1 - min(int(self.rng.geometric(0.35)) - 1, len(fit) - 1)]

    def put(self, text: str, dtype: str, data: np.ndarray) -> Tile:
        """A new variable; Unfit if what it holds is not exact."""
        made = Tile(self.name(), dtype, exact(data, dtype))
        self.lines.append(f"{self.indent}{made.name} = {text}")
        self.pool.append(made)
        return made

    def small(self, tile: Tile, limit: int) -> Tile:
        """The tile, or its remainders if it holds larger numbers than a limit (or negative ones)."""
        if tile.dtype == "int1":
            return tile
        if tile.data.size and tile.data.min() >= 0 and tile.data.max() < limit:
            return tile
        if tile.is_float:
            return self.put(
                f"{tile.name} - tl.floor({tile.name}.to(tl.float32) * {1 / limit}).to(tl.{tile.dtype}) * {limit}",
                tile.dtype, tile.data - np.floor(tile.data / limit) * limit,
            )  # fmt: skip
        if limit - 1 > np.iinfo(TYPES[tile.dtype]).max:
            raise Unfit
        return self.put(f"{tile.name} & {limit - 1}", tile.dtype, tile.data & TYPES[tile.dtype](limit - 1))

    def cast(self, tile: Tile, dtype: str) -> Tile:
        if tile.dtype == dtype:
            return tile
        return self.put(f"{tile.name}.to(tl.{dtype})", dtype, converted(tile, dtype))

    def reshape(self, tile: Tile, shape: tuple[int, ...]) -> Tile:
        if tile.shape == shape:
            return tile
        return self.put(f"{tile.name}.reshape({shape})", tile.dtype, tile.data.reshape(shape))

    def like(self, tile: Tile, *, dtype: str | None = None) -> Tile:
        """Another tile made to have a tile's shape (and type)."""
        other = self.tile(lambda t: t.data.size == tile.data.size or fits_broadcast(t.shape, tile.shape))
        if other.data.size == tile.data.size:
            other = self.reshape(other, tile.shape)
        else:
            shape = (1,) * (len(tile.shape) - len(other.shape)) + other.shape
            text = f"tl.broadcast_to({other.name}.reshape({shape}), {tile.shape})"
            other = self.put(text, other.dtype, np.broadcast_to(other.data.reshape(shape), tile.shape))
        return self.cast(other, dtype or tile.dtype)

    # ------------------------------------------------------------------ what a kernel does

    def load(self) -> None:
        shape = self.shape(self.elements)
        dtype = self.pick(name for name in TYPES if name != "int1")
        size = int(np.prod(shape))
        low = 0 if dtype.startswith("u") else -9
        data = self.rng.integers(low, 10, size).astype(TYPES[dtype])
        name = f"x{len(self.inputs)}"
        self.inputs[name] = torch.from_numpy(data).to(getattr(torch, dtype))
        order = self.rng.permutation(len(shape))
        kind = self.pick(["plain", "plain", "permuted", "masked", "indexed"])
        places = np.arange(size).reshape(shape)
        if kind == "permuted":
            places = np.arange(size).reshape([shape[d] for d in order]).transpose(np.argsort(order))
            terms = []
            strides = np.array(np.empty([shape[d] for d in order], np.int8).strides)[np.argsort(order)]
            for d, extent in enumerate(shape):
                index = ", ".join(":" if k == d else "None" for k in range(len(shape)))
                terms.append(f"tl.arange(0, {extent})[{index}] * {strides[d]}")
            self.put(f"tl.load({name} + {' + '.join(terms)})", dtype, data[places])
        elif kind == "masked":
            bound = int(self.rng.integers(1, size + 1))
            offsets = f"tl.arange(0, {size}).reshape({shape})"
            other = int(self.rng.integers(0, 9))
            self.put(
                f"tl.load({name} + {offsets}, {offsets} < {bound}, {other})", dtype,
                np.where(places < bound, data[places], TYPES[dtype](other)),
            )  # fmt: skip
        elif kind == "indexed":
            factor, shift = 2 * int(self.rng.integers(1, 500)) + 1, int(self.rng.integers(0, size))
            offsets = f"(tl.arange(0, {size}).reshape({shape}) * {factor} + {shift}) % {size}"
            self.put(f"tl.load({name} + {offsets})", dtype, data[(places * factor + shift) % size])
        else:
            self.put(f"tl.load({name} + tl.arange(0, {size})).reshape({shape})", dtype, data[places])

    def shape(self, elements: int) -> tuple[int, ...]:
        """Of about as many elements, in 1 to 4 dimensions."""
        left = int(np.log2(elements)) - int(self.rng.integers(0, 3))
        extents = []
        for _ in range(int(self.rng.choice([1, 2, 3, 4], p=[0.25, 0.5, 0.15, 0.1])) - 1):
            extents.append(int(self.rng.integers(0, left + 1)))
            left -= extents[-1]
        extents.append(left)
        return tuple(1 << int(e) for e in self.rng.permutation(extents))

    def elementwise(self) -> None:
        a = self.tile()
        kind = self.pick(("unary", "binary", "binary", "compare", "where", "constant", "cast", "fma"))
        if kind == "unary":
            self.unary(a)
        elif kind == "binary":
            self.binary(a, self.like(a))
        elif kind == "compare":
            if a.dtype == "int1":
                raise Unfit
            sign, function = self.pick(COMPARISONS.items())
            b = self.like(a)
            self.put(f"{a.name} {sign} {b.name}", "int1", function(a.data, b.data))
        elif kind == "where":
            mask, b = self.like(a, dtype="int1"), self.like(a)
            self.put(f"tl.where({mask.name}, {a.name}, {b.name})", a.dtype, np.where(mask.data, a.data, b.data))
        elif kind == "constant":
            if a.dtype == "int1":
                raise Unfit
            number = int(self.rng.integers(1, 8))
            sign, function = self.pick((("+", np.add), ("-", np.subtract), ("*", np.multiply)))
            self.put(f"{a.name} {sign} {number}", a.dtype, function(a.data, TYPES[a.dtype](number)))
        elif kind == "cast":
            self.cast(a, self.pick(TYPES))
        else:
            if a.dtype not in ("float16", "float32"):
                raise Unfit
            b, c = self.like(a), self.like(a)
            self.put(f"tl.fma({a.name}, {b.name}, {c.name})", a.dtype, a.data * b.data + c.data)

    def unary(self, a: Tile) -> None:
        if a.dtype == "int1":
            self.put(f"~{a.name}", "int1", ~a.data)
        elif self.maybe() and not a.is_float:
            self.put(f"~{a.name}", a.dtype, ~a.data)
        elif self.maybe() and not a.dtype.startswith("u"):
            self.put(f"tl.abs({a.name})", a.dtype, np.abs(a.data))
        elif a.dtype.startswith("u"):
            raise Unfit
        else:
            self.put(f"-{a.name}", a.dtype, 0 - a.data)

    def binary(self, a: Tile, b: Tile) -> None:
        bits = (("&", np.bitwise_and), ("|", np.bitwise_or), ("^", np.bitwise_xor))
        sums = (("+", np.add), ("-", np.subtract), ("*", np.multiply))
        extremes = (("minimum", np.minimum), ("maximum", np.maximum))
        if a.dtype == "int1" or (not a.is_float and self.maybe(0.3)):
            sign, function = self.pick(bits)
        elif self.maybe(0.3):
            sign, function = self.pick(extremes)
            self.put(f"tl.{sign}({a.name}, {b.name}).to(tl.{a.dtype})", a.dtype, function(a.data, b.data))
            return
        else:
            sign, function = self.pick(sums)
        self.put(f"{a.name} {sign} {b.name}", a.dtype, function(a.data, b.data))

    def rearrange(self) -> None:
        a = self.tile()
        kind = self.pick(("trans", "trans", "reshape", "flip", "gather", "gather", "sort", "topk", "broadcast"))
        axis = int(self.rng.integers(len(a.shape)))
        if kind == "trans":
            order = tuple(map(int, self.rng.permutation(len(a.shape))))
            self.put(f"tl.permute({a.name}, {order})", a.dtype, a.data.transpose(order))
        elif kind == "reshape":
            self.reshape(a, self.shape_of(a.data.size))
        elif kind == "broadcast":
            narrow = [d for d, extent in enumerate(a.shape) if extent == 1]
            if not narrow or a.data.size * 4 > self.elements:
                raise Unfit
            shape = tuple(4 if d == narrow[0] else e for d, e in enumerate(a.shape))
            self.put(f"tl.broadcast_to({a.name}, {shape})", a.dtype, np.broadcast_to(a.data, shape))
        elif kind == "gather":
            index = self.small(self.like(a, dtype=self.pick(("int32", "int64", "int16"))), a.shape[axis])
            if len(a.shape) > 1 and self.maybe(0.3):
                index = self.halved(index, axis)
            self.put(
                f"tl.gather({a.name}, {index.name}, {axis})", a.dtype,
                np.take_along_axis(a.data, index.data.astype(np.int64), axis),
            )  # fmt: skip
        elif a.shape[axis] == 1 or a.dtype == "int1":
            raise Unfit
        elif kind == "flip":
            self.put(f"tl.flip({a.name}, {axis})", a.dtype, np.flip(a.data, axis))
        elif a.shape[-1] == 1 or a.shape[-1] > 64:  # a longer sort is as many operations as ten other kernels
            raise Unfit
        elif kind == "sort":
            falls = self.maybe()
            ordered = np.sort(a.data, -1)
            self.put(f"tl.sort({a.name}, descending={falls})", a.dtype, ordered[..., ::-1] if falls else ordered)
        else:
            count = 1 << int(self.rng.integers(0, a.shape[-1].bit_length()))
            if count * a.data.size // a.shape[-1] == 1:
                raise Unfit
            self.put(f"tl.topk({a.name}, {count})", a.dtype, np.sort(a.data, -1)[..., ::-1][..., :count])

    def halved(self, tile: Tile, axis: int) -> Tile:
        """The larger of each two neighbours along an axis."""
        if tile.shape[axis] < 2:
            raise Unfit
        shape = (*tile.shape[:axis], tile.shape[axis] // 2, 2, *tile.shape[axis + 1 :])
        pairs = self.reshape(tile, shape)
        text = f"tl.max({pairs.name}, {axis + 1}).to(tl.{tile.dtype})"
        return self.put(text, tile.dtype, pairs.data.max(axis + 1))

    def shape_of(self, size: int) -> tuple[int, ...]:
        left, extents = size.bit_length() - 1, []
        for _ in range(int(self.rng.integers(0, 4))):
            extents.append(int(self.rng.integers(0, left + 1)))
            left -= extents[-1]
        return tuple(1 << e for e in (*extents, left))

    def reduce(self) -> None:
        a = self.tile(lambda tile: tile.data.size > 1)
        axis = int(self.rng.integers(len(a.shape)))
        kind = self.pick(("sum", "max", "min", "xor", "argmax", "argmin", "any", "pair", "histogram", "dot", "dot"))
        if kind == "histogram":
            row = self.small(self.cast(self.reshape(a, (a.data.size,)), "int32"), 32)
            if row.data.size > 1 << 14:
                raise Unfit
            self.put(f"tl.histogram({row.name}, 32)", "int32", np.bincount(row.data, minlength=32).astype(np.int32))
            return
        if kind == "dot":
            self.dot(a)
            return
        if len(a.shape) == 1:
            a = self.reshape(a, (a.shape[0] // 2, 2) if self.maybe() else (2, a.shape[0] // 2))
        keep = self.maybe(0.3)
        if a.dtype == "int1":
            a = self.cast(a, "int32")
        keeps = f", keep_dims={keep}"

        def shown(data: np.ndarray) -> np.ndarray:
            return np.expand_dims(data, axis) if keep else data

        if kind == "sum":
            fits_sum(a)
            self.put(
                f"tl.sum({a.name}, {axis}{keeps}).to(tl.{a.dtype})",
                a.dtype,
                shown(a.data.sum(axis, dtype=a.data.dtype)),
            )
        elif kind in ("max", "min"):
            result = getattr(a.data, kind)(axis)
            self.put(f"tl.{kind}({a.name}, {axis}{keeps}).to(tl.{a.dtype})", a.dtype, shown(result))
        elif kind == "xor":
            if a.is_float:
                raise Unfit
            result = np.bitwise_xor.reduce(a.data, axis)
            self.put(f"tl.xor_sum({a.name}, {axis}{keeps}).to(tl.{a.dtype})", a.dtype, shown(result))
        elif kind in ("argmax", "argmin"):
            result = getattr(a.data, kind)(axis).astype(np.int32)
            self.put(f"tl.{kind}({a.name}, {axis}{keeps})", "int32", shown(result))
        elif kind == "any":
            self.put(f"tl.reduce({a.name}, {axis}, larger{keeps})", a.dtype, shown(a.data.max(axis)))
        else:
            pair = self.name()
            self.lines.append(f"{self.indent}{pair} = tl.reduce(({a.name}, {a.name}), {axis}, extremes{keeps})")
            self.put(f"{pair}[0]", a.dtype, shown(a.data.min(axis)))
            self.put(f"{pair}[1]", a.dtype, shown(a.data.max(axis)))

    def dot(self, a: Tile) -> None:
        if a.data.size < 4:
            raise Unfit
        bits = a.data.size.bit_length() - 1
        rows = int(self.rng.integers(0, min(bits, 9) + 1))
        if bits - rows > 10:
            rows = bits - 10
        depth = bits - rows
        dtype = self.pick(("float16", "float32", "bfloat16", "int8"))
        small = {"float16": 4, "float32": 8, "bfloat16": 4, "int8": 16}[dtype]
        left = self.cast(self.small(self.reshape(a, (1 << rows, 1 << depth)), small), dtype)
        other = self.tile(lambda t: depth <= t.data.size.bit_length() - 1 <= depth + 9)
        columns = other.data.size >> depth
        right = self.cast(self.small(self.reshape(other, (columns, 1 << depth)), small), dtype)
        if (left.data.size * columns) >> 25:
            raise Unfit
        product = left.data.astype(np.float64) @ right.data.astype(np.float64).T
        result = "int32" if dtype == "int8" else "float32"
        text = f"tl.dot({left.name}, tl.trans({right.name}), out_dtype=tl.{result})"
        self.put(text, result, product.astype(TYPES[result]))

    def scan(self) -> None:
        a = self.tile(lambda tile: tile.data.size > 1 and tile.dtype != "int1")
        axis = int(self.rng.integers(len(a.shape)))
        backwards = self.maybe()
        kind = self.pick(("sum", "sum", "product", "larger", "add", "affine"))

        def along(function: Callable[[np.ndarray], np.ndarray], data: np.ndarray) -> np.ndarray:
            return np.flip(function(np.flip(data, axis)), axis) if backwards else function(data)

        if kind == "sum":
            fits_sum(a)
            result = along(lambda data: np.cumsum(data, axis, dtype=data.dtype), a.data)
            text = f"tl.cumsum({a.name}, {axis}, reverse={backwards})"
        elif kind == "product":
            if a.is_float:
                a = self.put(f"tl.where({a.name} > 0, 1.0, -1.0).to(tl.{a.dtype})", a.dtype, np.sign(a.data - 0.5))
            result = along(lambda data: np.cumprod(data, axis, dtype=data.dtype), a.data)
            text = f"tl.cumprod({a.name}, {axis}, reverse={backwards})"
        elif kind == "larger":
            result = along(lambda data: np.maximum.accumulate(data, axis), a.data)
            text = f"tl.associative_scan({a.name}, {axis}, larger, reverse={backwards})"
        elif kind == "add":
            fits_sum(a)
            result = along(lambda data: np.cumsum(data, axis, dtype=data.dtype), a.data)
            text = f"tl.associative_scan({a.name}, {axis}, add, reverse={backwards})"
        else:
            if a.is_float:
                raise Unfit
            factor, term = self.put(f"{a.name} | 1", a.dtype, a.data | 1), a

            def affine(data: np.ndarray) -> np.ndarray:
                factors, terms = np.moveaxis(data[0], axis, 0), np.moveaxis(data[1], axis, 0)
                out = [terms[0]]
                for one, more in zip(factors[1:], terms[1:], strict=True):
                    out.append(out[-1] * one + more)
                return np.moveaxis(np.stack(out), 0, axis)

            both = np.stack([factor.data, term.data])
            result = np.flip(affine(np.flip(both, axis + 1)), axis) if backwards else affine(both)
            text = f"tl.associative_scan(({factor.name}, {term.name}), {axis}, affine, reverse={backwards})[1]"
        self.put(f"{text}.to(tl.{a.dtype})", a.dtype, result)

    def join(self) -> None:
        a = self.tile()
        if self.maybe() and a.shape[-1] == 2 and a.data.size > 2:
            first, second = self.name(), self.name()
            self.lines.append(f"{self.indent}{first}, {second} = tl.split({a.name})")
            self.pool += [Tile(first, a.dtype, a.data[..., 0]), Tile(second, a.dtype, a.data[..., 1])]
            return
        if a.data.size * 2 > self.elements:
            a = self.reshape(a, (*self.shape_of(a.data.size // 2), 2))
            return
        b = self.like(a)
        if self.maybe():
            self.put(f"tl.join({a.name}, {b.name})", a.dtype, np.stack([a.data, b.data], -1))
        else:
            together = np.stack([a.data, b.data], -1).reshape(*a.shape[:-1], -1)
            self.put(f"tl.interleave({a.name}, {b.name})", a.dtype, together)

    def choose(self) -> None:
        """A branch on a number the kernel works out, which both sides give a tile."""
        a = self.tile(lambda tile: tile.dtype in ("int32", "int64", "int16"))
        total = self.name()
        self.lines.append(f"{self.indent}{total} = tl.max({self.reshape(a, (a.data.size,)).name}, 0)")
        largest, limit = a.data.max(), int(self.rng.integers(-9, 10))
        b = self.tile()
        c = self.like(b)
        name = self.name()
        self.lines += [
            f"{self.indent}{name} = {b.name}",
            f"{self.indent}if {total} > {limit}:",
            f"{self.indent}    {name} = {c.name}",
        ]
        self.pool.append(Tile(name, b.dtype, c.data if largest > limit else b.data))

    def loop(self) -> None:
        """A loop that carries one to three tiles: their next values are what a few operations make of them."""
        if len(self.indent) > 4:
            raise Unfit
        carried = []
        for _ in range(int(self.rng.integers(1, 4))):
            start = self.tile()
            name = self.name()
            self.lines.append(f"{self.indent}{name} = {start.name}")
            carried.append(Tile(name, start.dtype, start.data))
        outside, lines = self.pool, self.lines
        count = int(self.rng.integers(1, 4))
        trips = self.name()
        state = self.rng.bit_generator.state
        current, first_body = carried, list[str]()
        for trip in range(count):  # the same numbers are drawn each time, so the same operations
            self.rng.bit_generator.state = state
            before = self.count
            self.pool, self.lines, self.indent = [*outside, *current], [], "        "
            try:
                following = self.turn(current)
            except Unfit:
                self.indent = "    "
                self.pool, self.lines = outside, lines
                if not trip:
                    raise
                count = trip
                break
            body, self.indent = self.lines, "    "
            if trip and body != first_body:
                count = trip
                self.pool, self.lines = outside, lines
                break
            first_body = body
            current = following
            if trip + 1 < count:
                self.count = before
        self.pool, self.lines = [*outside, *current], lines
        self.lines += [f"{self.indent}for {trips} in range({count}):", *first_body]

    def turn(self, carried: list[Tile]) -> list[Tile]:
        """The body. It gives each name something new: where one turn only passes names on, Triton's front end takes
        those whose first values are the same for one."""
        outside = len(self.pool)
        for _ in range(int(self.rng.integers(1, 4))):
            self.step({name: weight for name, weight in WEIGHTS.items() if name not in ("loop", "choose")})
        following = []
        made = set(self.pool[outside:])
        for tile in carried:
            value = self.tile(lambda t, size=tile.data.size: t in made and t.data.size == size)
            following.append(self.cast(self.reshape(value, tile.shape), tile.dtype))
        spares = [self.name() for _ in carried]
        self.lines += [f"{self.indent}{s} = {v.name}" for s, v in zip(spares, following, strict=True)]
        self.lines += [f"{self.indent}{t.name} = {s}" for t, s in zip(carried, spares, strict=True)]
        return [Tile(t.name, t.dtype, v.data) for t, v in zip(carried, following, strict=True)]

    def store(self, tile: Tile) -> None:
        if tile.dtype == "int1":
            tile = self.cast(tile, "int8")
        name, size = f"y{len(self.expected)}", tile.data.size
        kind = self.pick(("plain", "plain", "masked", "scattered", "atomic"))
        before = np.full((self.programs, size), 5, TYPES[tile.dtype])
        values = tile.data.reshape(size)
        after = np.repeat(values[None], self.programs, 0)
        flat = self.reshape(tile, (size,)).name if kind != "plain" else ""
        base = f"{name} + tl.program_id(0) * {size}"
        offsets = f"tl.arange(0, {size})"
        if kind == "plain":
            self.lines.append(f"    tl.store({base} + {offsets}.reshape({tile.shape}), {tile.name})")
        elif kind == "masked":
            bound = int(self.rng.integers(1, size + 1))
            self.lines.append(f"    tl.store({base} + {offsets}, {flat}, {offsets} < {bound})")
            after[:, bound:] = before[:, bound:]
        elif kind == "scattered":
            factor = 2 * int(self.rng.integers(1, 500)) + 1
            self.lines.append(f"    tl.store({base} + {offsets} * {factor} % {size}, {flat})")
            after = before.copy()
            after[:, np.arange(size) * factor % size] = values
        elif tile.dtype not in ("int32", "uint32", "int64") or size > 1 << 14:
            raise Unfit
        else:
            function, ufunc = self.pick((("add", np.add), ("max", np.maximum), ("xor", np.bitwise_xor)))
            after = before.copy()
            bins = max(1, size // 4)
            for row in after:
                ufunc.at(row, np.arange(size) % bins, values)
            self.lines.append(f"    tl.atomic_{function}({base} + {offsets} % {bins}, {flat})")
        self.expected[name] = after
        self.inputs[name] = torch.from_numpy(before).to(getattr(torch, tile.dtype))

    def step(self, weights: dict[str, int]) -> None:
        """One operation, whichever suits."""
        for _ in range(50):
            names, chances = list(weights), np.array(list(weights.values()), float)
            kind = str(self.rng.choice(names, p=chances / chances.sum()))
            before = len(self.lines), len(self.pool)
            try:
                getattr(self, kind)()
                return
            except Unfit:
                del self.lines[before[0] :], self.pool[before[1] :]
        raise Unfit


COMPARISONS = {"<": np.less, "<=": np.less_equal, ">": np.greater, "==": np.equal, "!=": np.not_equal}


def exact(data: np.ndarray, dtype: str) -> np.ndarray:
    """What a tile of a type holds; Unfit if the type cannot hold it."""
    data = np.asarray(data, TYPES[dtype])
    if dtype in LARGEST and data.size and (np.abs(data).max() > LARGEST[dtype] or (data != np.floor(data)).any()):
        raise Unfit
    return data + 0.0 if dtype in LARGEST else data


def converted(tile: Tile, dtype: str) -> np.ndarray:
    if dtype == "int1":
        return tile.data != 0
    if tile.is_float and dtype not in LARGEST:
        info = np.iinfo(TYPES[dtype])
        if (tile.data < info.min).any() or (tile.data > info.max).any():
            raise Unfit
    with np.errstate(over="ignore"):
        return tile.data.astype(TYPES[dtype])


def fits_sum(tile: Tile) -> None:
    if tile.is_float and np.abs(tile.data).sum() > LARGEST[tile.dtype]:
        raise Unfit


def fits_broadcast(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if len(shape) > len(target):
        return False
    return all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))


def random_kernel(seed: int, scratchpad_bytes: int, operations: int = 8) -> RandomKernel:
    """A kernel whose tiles take from an eighth of a scratchpad to twice as much."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        elements = scratchpad_bytes // 2 >> int(rng.integers(0, 5))
        writer = Writer(rng, elements, programs=int(rng.integers(1, 3)))
        try:
            with np.errstate(over="ignore"):
                for _ in range(int(rng.integers(1, 4))):
                    writer.load()
                for _ in range(int(rng.integers(1, operations + 1))):
                    writer.step(WEIGHTS)
                stored = [writer.pool[-1], *rng.permutation(np.array(writer.pool, object))[:2]]
                for tile in dict.fromkeys(stored):
                    writer.store(tile)
        except Unfit:
            continue
        header = HEADER.format(seed=seed, parameters=", ".join(writer.inputs))
        source = header + "\n".join(writer.lines) + "\n"
        return RandomKernel(seed, source, writer.inputs, writer.expected, writer.programs)
    raise AssertionError(f"seed {seed}: no kernel")
