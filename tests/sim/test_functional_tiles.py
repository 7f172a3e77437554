"""Matrix products, rectangular and indexed DMA: the native code against the reference evaluator, bit for bit."""

import itertools

import numpy as np
import pytest

from tapeout import runtime
from tapeout.chip import load
from tapeout.isa import AccessPattern, Function, Parameter, Program, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import MATRIX_DTYPES, accumulator_dtype
from tapeout.sim.evaluator import run
from tapeout.sim.state import Memory

CHIP = load("inference")
MEMORY = (Parameter("memory", "*i8"),)


def bits(dtype, count, source, *, wild):
    """Elements as bytes: any bits at all, or (for floats) numbers of ordinary size."""
    if wild or not dtype.is_float:
        return source.integers(0, 256, count * dtype.size_bytes, dtype=np.uint8)
    mantissa = {DType.F32: 23, DType.F64: 52, DType.BF16: 7, DType.F16: 10, DType.F8E4M3: 3, DType.F8E5M2: 2}[dtype]
    exponent_bits = dtype.bits - 1 - mantissa
    middle = (1 << (exponent_bits - 1)) - 1
    unsigned = f"u{dtype.size_bytes}"
    exponent = source.integers(middle - 2, middle + 2, count).astype(unsigned) << np.dtype(unsigned).type(mantissa)
    rest = source.integers(0, 256, count * dtype.size_bytes, dtype=np.uint8).view(unsigned)
    kept = np.dtype(unsigned).type((1 << (dtype.bits - 1)) | ((1 << mantissa) - 1))
    return (exponent | (rest & kept)).view(np.uint8)


def assert_agreement(program, image):
    base = image.ctypes.data
    before = image.copy()
    run(program, CHIP, (1, 1, 1), (base,), Memory(base, image))
    want = image.copy()
    image[:] = before
    runtime.load(program, CHIP).launch((1, 1, 1), (base,))
    wrong = np.flatnonzero(image != want)
    assert not len(wrong), f"byte {wrong[0]} is {image[wrong[0]]}, not {want[wrong[0]]} ({len(wrong)} differ)"


class Builder:
    """A program written step by step: each tile instruction waits for the one before."""

    def __init__(self):
        self.items = [isa.Argument(destination=1, index=0)]
        self.registers = itertools.count(2)

    def register(self, value):
        number = next(self.registers)
        self.items.append(isa.LoadImmediate(destination=number, value=value))
        return number

    def address(self, offset):
        number = next(self.registers)
        self.items.append(
            isa.Scalar(destination=number, a=1, b=self.register(offset), function=Function.ADD, dtype=DType.I64)
        )
        return number

    def add(self, item):
        self.items += [item, isa.Drain()]

    def flat(self, kind, dtype, offset, count, address):
        self.add(
            kind(
                dtype=dtype,
                base=self.address(offset),
                strides=(0, 0, 0, self.register(dtype.size_bytes)),
                shape=(1, 1, 1, count),
                tile=AccessPattern(address, (0, 0, 0, 1)),
            )
        )

    def program(self):
        return Program("tiles", CHIP.name, (*self.items, isa.Halt()), MEMORY, scratchpad_bytes=1 << 18)


LAYOUTS = {"rows": lambda rows, columns: (columns, 1), "columns": lambda rows, columns: (1, rows)}


@pytest.mark.parametrize("wild", [False, True], ids=["ordinary", "any bits"])
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 7), (1, 1, 70, 40), (1, 17, 33, 16), (1, 16, 64, 48), (1, 13, 21, 300)], ids=str
)
@pytest.mark.parametrize("dtype", MATRIX_DTYPES, ids=str)
def test_products(dtype, shape, wild):
    """Every layout of the operands, with and without an accumulator, one also transposed."""
    batch, m, n, k = shape
    if dtype is DType.F64:
        m, k = min(m, 3), min(k, 9)  # the evaluator's float64 products are exact fractions, and slow
        shape = (batch, m, n, k)
    source = np.random.default_rng(sum(shape))
    sums = accumulator_dtype(dtype)
    for lhs_layout, rhs_layout, accumulate in itertools.product(LAYOUTS, LAYOUTS, (False, True)):
        builder = Builder()
        sizes = (batch * m * k, batch * k * n, batch * m * n)
        parts = [bits(d, s, source, wild=wild) for d, s in zip((dtype, dtype, sums), sizes, strict=True)]
        offsets = np.cumsum([0, *(-(-len(p) // 64) * 64 for p in parts)])
        image = np.zeros(offsets[-1], np.uint8)
        for number, (part, element) in enumerate(zip(parts, (dtype, dtype, sums), strict=True)):
            image[offsets[number] : offsets[number] + len(part)] = part
            builder.flat(isa.Load, element, int(offsets[number]), sizes[number], 65536 * number)
        m_stride, k_stride = LAYOUTS[lhs_layout](m, k)
        k_rhs, n_stride = LAYOUTS[rhs_layout](k, n)
        out_m, out_n = (n, 1) if lhs_layout == "rows" else (1, m)
        builder.add(
            isa.MatrixMultiply(
                lhs_dtype=dtype,
                rhs_dtype=dtype,
                accumulate=accumulate,
                shape=shape,
                accumulator=AccessPattern(131072, (m * n, out_m, out_n, 0)),
                lhs=AccessPattern(0, (m * k, m_stride, 0, k_stride)),
                rhs=AccessPattern(65536, (k * n, 0, n_stride, k_rhs)),
            )
        )
        builder.flat(isa.Store, sums, int(offsets[2]), sizes[2], 131072)
        assert_agreement(builder.program(), image)


def test_long_sums_of_bytes_are_exact():
    """More products than float32 sums hold exactly, all at the extreme."""
    builder = Builder()
    image = np.full(3 * 1600, 0x80, np.uint8)
    builder.flat(isa.Load, DType.I8, 0, 3 * 1500, 0)
    builder.add(
        isa.MatrixMultiply(
            lhs_dtype=DType.I8,
            rhs_dtype=DType.I8,
            accumulate=False,
            shape=(1, 1, 2, 1500),
            accumulator=AccessPattern(65536, (0, 0, 1, 0)),
            lhs=AccessPattern(0, (0, 0, 0, 1)),
            rhs=AccessPattern(1500, (0, 0, 1500, 1)),
        )
    )
    builder.flat(isa.Store, DType.I32, 4504, 2, 65536)
    assert_agreement(builder.program(), image)
    assert (image[4504:4512].view(np.int32) == 1500 * 128 * 128).all()


def test_float8_formats_mix():
    source = np.random.default_rng(8)
    for left, right in itertools.permutations((DType.F8E4M3, DType.F8E5M2)):
        builder = Builder()
        image = np.concatenate([source.integers(0, 256, 512, dtype=np.uint8), np.zeros(1024, np.uint8)])
        builder.flat(isa.Load, DType.I8, 0, 512, 0)
        builder.add(
            isa.MatrixMultiply(
                lhs_dtype=left,
                rhs_dtype=right,
                accumulate=False,
                shape=(1, 16, 16, 16),
                accumulator=AccessPattern(4096, (0, 16, 1, 0)),
                lhs=AccessPattern(0, (0, 16, 0, 1)),
                rhs=AccessPattern(256, (0, 0, 1, 16)),
            )
        )
        builder.flat(isa.Store, DType.F32, 512, 256, 4096)
        assert_agreement(builder.program(), image)


ELEMENTS = {1: DType.I8, 2: DType.BF16, 4: DType.F32, 8: DType.I64}


@pytest.mark.parametrize("size", ELEMENTS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 33, 47), (1, 1, 16, 32), (2, 3, 17, 5), (1, 1, 1, 65), (3, 1, 65, 1)], ids=str
)
def test_blocks_in_every_order(shape, size):
    """Loads and stores between all orders of dimensions: row copies, transpositions, strided elements, broadcast."""
    dtype = ELEMENTS[size]
    count = int(np.prod(shape))
    source = np.random.default_rng(count)
    orders = [(0, 1, 2, 3), (0, 1, 3, 2), (3, 2, 1, 0), (2, 0, 3, 1)]

    def dense(order, unit):
        strides, reach = [0] * 4, unit
        for dimension in reversed(order):
            strides[dimension] = reach
            reach *= shape[dimension]
        return strides

    for memory_order, tile_order, gap in itertools.product(orders, orders[1:3], (1, 2)):
        image = source.integers(0, 256, 4 * count * size, dtype=np.uint8)
        builder = Builder()
        tile = AccessPattern(0, tuple(dense(tile_order, 1)))
        strides = dense(memory_order, size * gap)
        from_memory = tuple(builder.register(s) for s in strides)
        builder.add(isa.Load(dtype=dtype, base=1, strides=from_memory, shape=shape, tile=tile))
        back = AccessPattern(0, tuple(dense((0, 1, 2, 3), 1)))
        to_memory = tuple(builder.register(s) for s in dense(tile_order, size))
        builder.add(
            isa.Store(dtype=dtype, base=builder.address(2 * count * size), strides=to_memory, shape=shape, tile=back)
        )
        assert_agreement(builder.program(), image)


@pytest.mark.parametrize("size", ELEMENTS)
def test_constants_and_broadcasts(size):
    dtype = ELEMENTS[size]
    image = np.random.default_rng(size).integers(0, 256, 64 * 100 * size, dtype=np.uint8)
    builder = Builder()
    element, row = builder.register(size), builder.register(100 * size)
    value = builder.register(-3)
    shape = (1, 1, 30, 90)
    builder.add(isa.Store(dtype=dtype, base=1, strides=(0, 0, row, element), shape=shape, tile=RegisterValue(value)))
    tile = AccessPattern(0, (0, 0, 90, 1))
    start = builder.address(40 * 100 * size)
    builder.add(isa.Load(dtype=dtype, base=start, strides=(0, 0, row, 0), shape=(1, 1, 20, 90), tile=tile))
    builder.add(isa.Store(dtype=dtype, base=start, strides=(0, 0, row, element), shape=(1, 1, 20, 90), tile=tile))
    assert_agreement(builder.program(), image)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("by_row", [False, True], ids=["elements", "rows"])
@pytest.mark.parametrize("size", ELEMENTS)
def test_indexed_access(size, by_row, masked):
    """Gather rows or elements, scatter them elsewhere."""
    dtype = ELEMENTS[size]
    source = np.random.default_rng(size)
    rows, columns = 12, 40
    count = rows if by_row else rows * columns
    where = source.permutation(count).astype(np.int32)
    mask = source.integers(0, 2, count, dtype=np.uint8)
    index_end = 4 * len(where)
    mask_end = -(-(index_end + count) // 64) * 64
    data = source.integers(0, 256, rows * columns * size, dtype=np.uint8)
    image = np.concatenate(
        [where.view(np.uint8), mask, np.zeros(mask_end - index_end - count, np.uint8), data, 0 * data]
    )
    builder = Builder()
    builder.flat(isa.Load, DType.I32, 0, len(where), 0)
    builder.flat(isa.Load, DType.I8, index_end, count, 16384)
    element, fill = builder.register(size), builder.register(7)
    strides, scale, along = ((0, 0, 0, element), columns * size, (0, 0, 1, 0)) if by_row else ((0,) * 4, size, None)
    pattern = along or (0, 0, columns, 1)
    common = {
        "dtype": dtype,
        "index_dtype": DType.I32,
        "scale": scale,
        "strides": strides,
        "shape": (1, 1, rows, columns),
        "tile": AccessPattern(32768, (0, 0, columns, 1)),
        "index": AccessPattern(0, pattern),
        "mask": AccessPattern(16384, pattern) if masked else RegisterValue(0),
    }
    builder.add(isa.LoadIndexed(base=builder.address(mask_end), fill=fill, **common))
    builder.add(isa.StoreIndexed(base=builder.address(mask_end + len(data)), **common))
    assert_agreement(builder.program(), image)
