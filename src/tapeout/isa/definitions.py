"""Every instruction of the core, each defined once.

The sequencer executes its own instructions in order and puts the others, with register values filled in,
into the queue of their unit. Each queue executes in order, one after the other; queues run independently,
and only semaphores order them: a queued instruction takes a count of `wait_a` and `wait_b` before it starts
and gives one to `signal_a` and `signal_b` when its last byte is written.

An element of the scratchpad lies at a multiple of its size. A result may lie exactly on a source, element for
element, else it overlaps no source of its instruction, nor itself.
"""

from collections.abc import Callable
from typing import Any

from tapeout.isa import costs
from tapeout.isa import fields as f
from tapeout.isa.fields import Unit, instruction
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import accumulator_dtype
from tapeout.numerics.operations import AtomicFunction, Function, Rounding

NONE = (0, 0, 0, 0)
"""Register 0 along every dimension."""


def _sum_dtype(facts: Any) -> DType:
    return accumulator_dtype(facts.lhs_dtype)


def _one_innermost(facts: Any) -> tuple[int, ...]:
    return (*facts.shape[:3], 1)


def _result_dtype(facts: Any) -> DType:
    function: Function = facts.function
    return function.result_dtype(facts.dtype)


def _operand_dtype(number: int) -> Callable[[Any], DType]:
    def dtype_of(facts: Any) -> DType:
        function: Function = facts.function
        return function.operand_dtypes(facts.dtype)[number]

    return dtype_of


# ---------------------------------------------------------------------------------------------- sequencer


@instruction(0x01, "halt", Unit.SEQUENCER, meaning="wait until all queues are empty and idle; stop", cost=costs.waiting)
class Halt(f.Instruction):
    """End of the program on this core."""


@instruction(0x02, "jump", Unit.SEQUENCER, meaning="pc = target", cost=costs.branch)
class Jump(f.Instruction):
    """Continue elsewhere."""

    target: int = f.target("where to")


@instruction(0x03, "branch_nonzero", Unit.SEQUENCER, meaning="if r[condition] != 0: pc = target", cost=costs.branch)
class BranchNonzero(f.Instruction):
    """Continue elsewhere if a register is not zero."""

    condition: int = f.register("tested register")
    target: int = f.target("where to")


@instruction(0x04, "branch_zero", Unit.SEQUENCER, meaning="if r[condition] == 0: pc = target", cost=costs.branch)
class BranchZero(f.Instruction):
    """Continue elsewhere if a register is zero."""

    condition: int = f.register("tested register")
    target: int = f.target("where to")


@instruction(
    0x05,
    "next_program",
    Unit.SEQUENCER,
    meaning="r[destination] = 1 and (x, y, z) = the next program of the grid for this core;\n"
    "or r[destination] = 0 if there is none",
    cost=costs.next_program,
)
class NextProgram(f.Instruction):
    """Take the next program of the launched grid from the dispatcher."""

    destination: int = f.register("1 if there was one, else 0", reads=False, writes=True)


@instruction(0x06, "program_id", Unit.SEQUENCER, meaning="r[destination] = (x, y, z)[axis]", cost=costs.one_cycle)
class ProgramId(f.Instruction):
    """Coordinate of the current program in the grid."""

    destination: int = f.register("result", reads=False, writes=True)
    axis: int = f.unsigned(2, "0, 1 or 2")


@instruction(
    0x07, "grid_size", Unit.SEQUENCER, meaning="r[destination] = size of the grid along axis", cost=costs.one_cycle
)
class GridSize(f.Instruction):
    """Size of the launched grid."""

    destination: int = f.register("result", reads=False, writes=True)
    axis: int = f.unsigned(2, "0, 1 or 2")


@instruction(0x08, "argument", Unit.SEQUENCER, meaning="r[destination] = argument[index]", cost=costs.one_cycle)
class Argument(f.Instruction):
    """Read a launch argument: 64 bits; integers sign-extended, floats as their bits."""

    destination: int = f.register("result", reads=False, writes=True)
    index: int = f.unsigned(16, "which argument")


@instruction(
    0x09,
    "workspace",
    Unit.SEQUENCER,
    meaning="r[destination] = address of this core's private area in HBM",
    cost=costs.one_cycle,
)
class Workspace(f.Instruction):
    """Where this core may keep what outgrows its scratchpad; its size is in the program's header."""

    destination: int = f.register("result", reads=False, writes=True)


@instruction(0x0A, "load_immediate", Unit.SEQUENCER, meaning="r[destination] = value", cost=costs.one_cycle)
class LoadImmediate(f.Instruction):
    """Set a register to a constant."""

    destination: int = f.register("result", reads=False, writes=True)
    value: int = f.signed(64, "the constant")


@instruction(
    0x0B,
    "scalar",
    Unit.SEQUENCER,
    meaning="r[destination] = sign_extend(function(r[a], r[b]), dtype)",
    numerics="Integer functions of the table, on the low bits that dtype names; a predicate gives 0 or 1; "
    "an i1 result is 0 or 1.",
    cost=costs.scalar,
)
class Scalar(f.Instruction):
    """Integer arithmetic on registers."""

    destination: int = f.register("result", reads=False, writes=True)
    a: int = f.register("first operand")
    b: int = f.register("second operand (unused by unary functions)", default=0)
    function: Function = f.choice(Function, 8, "what is computed")
    dtype: DType = f.dtype("operand type, an integer type")


@instruction(
    0x0C,
    "scalar_select",
    Unit.SEQUENCER,
    meaning="r[destination] = r[a] if r[condition] != 0 else r[b]",
    cost=costs.one_cycle,
)
class ScalarSelect(f.Instruction):
    """Choose between two registers."""

    destination: int = f.register("result", reads=False, writes=True)
    condition: int = f.register("tested register")
    a: int = f.register("value if not zero")
    b: int = f.register("value if zero")


@instruction(
    0x0D,
    "scalar_convert",
    Unit.SEQUENCER,
    meaning="r[destination] = low bits of r[a] named by dtype, sign- or zero-extended to 64 bits",
    cost=costs.one_cycle,
)
class ScalarConvert(f.Instruction):
    """Extend the low bits of a register; an i1 is one bit."""

    destination: int = f.register("result", reads=False, writes=True)
    a: int = f.register("operand")
    dtype: DType = f.dtype("integer type of the low bits")
    unsigned: bool = f.flag("zero-extend", default=False)


@instruction(
    0x0E,
    "rotate",
    Unit.SEQUENCER,
    meaning="r[register] += step; if r[register] >= limit: r[register] = 0",
    cost=costs.one_cycle,
)
class Rotate(f.Instruction):
    """Advance a buffer offset to the next copy, cyclically."""

    register: int = f.register("offset in bytes", writes=True)
    step: int = f.rotation("size of one copy")
    limit: int = f.rotation("size of all copies")


@instruction(
    0x0F,
    "scalar_load",
    Unit.SEQUENCER,
    meaning="r[destination] = sign_extend(scratchpad[address + r[offset]], dtype)",
    cost=costs.scalar_load,
)
class ScalarLoad(f.Instruction):
    """Read one element of the scratchpad into a register (floats: their bits, zero-extended; i1: 0 or 1)."""

    destination: int = f.register("result", reads=False, writes=True)
    address: int = f.scratchpad_address("byte address")
    offset: int = f.register("added to the address", default=0)
    dtype: DType = f.dtype("element type")


@instruction(
    0x10,
    "scalar_store",
    Unit.SEQUENCER,
    meaning="scratchpad[address + r[offset]] = low bits of r[a]",
    cost=costs.scalar_store,
)
class ScalarStore(f.Instruction):
    """Write one element of the scratchpad from a register."""

    a: int = f.register("value")
    address: int = f.scratchpad_address("byte address")
    offset: int = f.register("added to the address", default=0)
    dtype: DType = f.dtype("element type")


@instruction(
    0x11, "wait", Unit.SEQUENCER, meaning="until count[semaphore] >= 1: wait; count[semaphore] -= 1", cost=costs.waiting
)
class Wait(f.Instruction):
    """Hold the sequencer until a semaphore has been given."""

    semaphore: int = f.semaphore("which", default=0)


@instruction(0x12, "drain", Unit.SEQUENCER, meaning="wait until all four queues are empty and idle", cost=costs.waiting)
class Drain(f.Instruction):
    """Hold the sequencer until everything issued so far is done."""


@instruction(
    0x13, "trap", Unit.SEQUENCER, meaning="stop the launch; report code and the current program", cost=costs.one_cycle
)
class Trap(f.Instruction):
    """A failed device assertion."""

    code: int = f.unsigned(32, "index into the program's table of messages")


# ------------------------------------------------------------------------------------- synchronisation


class Sync(f.Queued):
    """Base of the four instructions that are nothing but their waits and signals, one a queue."""


def _sync(opcode: int, mnemonic: str, unit: Unit) -> type[Sync]:
    @instruction(opcode, mnemonic, unit, meaning="nothing but its waits and signals", cost=costs.synchronise)
    class QueueSync(Sync):
        """Take and give semaphores at this place of the queue."""

    QueueSync.__name__ = QueueSync.__qualname__ = f"{unit.value.title()}Sync"
    return QueueSync


LoadSync = _sync(0x18, "load_sync", Unit.LOAD)
StoreSync = _sync(0x19, "store_sync", Unit.STORE)
MatrixSync = _sync(0x1A, "matrix_sync", Unit.MATRIX)
VectorSync = _sync(0x1B, "vector_sync", Unit.VECTOR)
SYNC = {Unit.LOAD: LoadSync, Unit.STORE: StoreSync, Unit.MATRIX: MatrixSync, Unit.VECTOR: VectorSync}

# --------------------------------------------------------------------------------------------------- DMA

_VALID = (
    "an element (i0..i3) is valid if low_d <= i_d < high_d for every d (low_d: r[low[d]], 0 for register 0; "
    "high_d: r[high[d]], the extent for register 0)"
)


@instruction(
    0x20,
    "load",
    Unit.LOAD,
    meaning=f"{_VALID};\ntile[i] = HBM[r[base] + sum(i_d * r[strides[d]])] where valid, else the low bits of r[fill]",
    cost=costs.block_transfer,
)
class Load(f.Queued):
    """Copy a rectangular block from HBM to the scratchpad, filling what lies outside bounds."""

    dtype: DType = f.dtype("element type; only its size matters")
    base: int = f.register("address of element (0,0,0,0), bytes")
    strides: tuple[int, ...] = f.registers("bytes between neighbours along each dimension", default=NONE)
    low: tuple[int, ...] = f.registers("first valid index of each dimension", default=NONE)
    high: tuple[int, ...] = f.registers("end of the valid indices of each dimension", default=NONE)
    fill: int = f.register("bits of the value outside bounds", default=0)
    shape: tuple[int, ...] = f.shape("extents")
    tile: f.AccessPattern = f.operand("destination", written=True)


@instruction(
    0x21,
    "load_indexed",
    Unit.LOAD,
    meaning=f"{_VALID} and mask[i] != 0 (mask as register 0: no mask);\n"
    "tile[i] = HBM[r[base] + index[i] * scale + sum(i_d * r[strides[d]])] where valid,\n"
    "else the low bits of r[fill]",
    cost=costs.indexed_transfer,
)
class LoadIndexed(f.Queued):
    """Gather: like load, each element's address displaced by an element of an index tile, masked by an i1
    tile."""

    dtype: DType = f.dtype("element type; only its size matters")
    index_dtype: DType = f.dtype("i32 or i64")
    scale: int = f.unsigned(16, "bytes an index counts")
    base: int = f.register("address, bytes")
    strides: tuple[int, ...] = f.registers("bytes between neighbours along each dimension", default=NONE)
    low: tuple[int, ...] = f.registers("first valid index of each dimension", default=NONE)
    high: tuple[int, ...] = f.registers("end of the valid indices of each dimension", default=NONE)
    fill: int = f.register("bits of the value where not valid", default=0)
    shape: tuple[int, ...] = f.shape("extents")
    tile: f.AccessPattern = f.operand("destination", written=True)
    index: f.Operand = f.operand("indices (signed); a register is a constant index", of="index_dtype", scalar=True)
    mask: f.Operand = f.operand("i1 tile; register 0: every element", of=DType.I1, scalar=True)


@instruction(
    0x22,
    "store",
    Unit.STORE,
    meaning=f"{_VALID};\nHBM[r[base] + sum(i_d * r[strides[d]])] = tile[i] where valid",
    cost=costs.block_transfer,
)
class Store(f.Queued):
    """Copy a rectangular block from the scratchpad to HBM, leaving alone what lies outside bounds."""

    dtype: DType = f.dtype("element type; only its size matters")
    base: int = f.register("address of element (0,0,0,0), bytes")
    strides: tuple[int, ...] = f.registers("bytes between neighbours along each dimension", default=NONE)
    low: tuple[int, ...] = f.registers("first valid index of each dimension", default=NONE)
    high: tuple[int, ...] = f.registers("end of the valid indices of each dimension", default=NONE)
    shape: tuple[int, ...] = f.shape("extents")
    tile: f.Operand = f.operand("source; a register stores one value everywhere", scalar=True)


@instruction(
    0x23,
    "store_indexed",
    Unit.STORE,
    meaning=f"{_VALID} and mask[i] != 0 (mask as register 0: no mask);\n"
    "HBM[r[base] + index[i] * scale + sum(i_d * r[strides[d]])] = tile[i] where valid, in the order of i",
    cost=costs.indexed_transfer,
)
class StoreIndexed(f.Queued):
    """Scatter: like store, each element's address displaced by an element of an index tile, masked by an i1
    tile."""

    dtype: DType = f.dtype("element type; only its size matters")
    index_dtype: DType = f.dtype("i32 or i64")
    scale: int = f.unsigned(16, "bytes an index counts")
    base: int = f.register("address, bytes")
    strides: tuple[int, ...] = f.registers("bytes between neighbours along each dimension", default=NONE)
    low: tuple[int, ...] = f.registers("first valid index of each dimension", default=NONE)
    high: tuple[int, ...] = f.registers("end of the valid indices of each dimension", default=NONE)
    shape: tuple[int, ...] = f.shape("extents")
    tile: f.Operand = f.operand("source; a register stores one value everywhere", scalar=True)
    index: f.Operand = f.operand("indices (signed); a register is a constant index", of="index_dtype", scalar=True)
    mask: f.Operand = f.operand("i1 tile; register 0: every element", of=DType.I1, scalar=True)


@instruction(
    0x24,
    "atomic",
    Unit.STORE,
    meaning="for each valid i, in order (valid as in store_indexed without bounds): one indivisible step of "
    "x = HBM[r[base] + index[i] * scale]; HBM[...] = function(x, tile[i]); previous[i] = x\n"
    "compare_swap: HBM[...] = other[i] if x == tile[i], else x",
    numerics="Adds of floats round to nearest even; max and min exist for integers only.",
    cost=costs.atomic_transfer,
)
class Atomic(f.Queued):
    """Read-modify-write of HBM words picked by an index tile; the old values come back into a tile."""

    dtype: DType = f.dtype("element type")
    index_dtype: DType = f.dtype("i32 or i64")
    function: AtomicFunction = f.choice(AtomicFunction, 4, "what is done")
    scale: int = f.unsigned(16, "bytes an index counts")
    base: int = f.register("address, bytes")
    shape: tuple[int, ...] = f.shape("extents")
    tile: f.Operand = f.operand("operand a", scalar=True)
    other: f.Operand = f.operand("new value of compare_swap", scalar=True)
    index: f.Operand = f.operand("indices (signed)", of="index_dtype", scalar=True)
    mask: f.Operand = f.operand("i1 tile; register 0: every element", of=DType.I1, scalar=True)
    previous: f.AccessPattern = f.operand("old values", written=True)


# ------------------------------------------------------------------------------------------------ matrix


@instruction(
    0x30,
    "matrix_multiply",
    Unit.MATRIX,
    meaning="shape is (batch, m, n, k);\nfor each (b, m, n): acc = accumulator[b,m,n] if accumulate else 0;\n"
    "for k ascending: acc = fma(lhs[b,m,k], rhs[b,k,n], acc); accumulator[b,m,n] = acc",
    numerics="Floats: operands are widened to float32 exactly; each step is a float32 fused multiply-add, "
    "rounded once to nearest even, subnormals kept; a NaN result is the canonical NaN. bf16, f16 and fp8 "
    "products are exact, so the one rounding is the sum's. i8: exact, accumulated in i32 with wrap-around. "
    "f64 operands: f64 fma, f64 accumulator.",
    cost=costs.matrix_product,
)
class MatrixMultiply(f.Queued):
    """Multiply two tiles and accumulate. The strides of lhs are zero along n, those of rhs along m, of
    accumulator along k."""

    lhs_dtype: DType = f.dtype("f32, bf16, f16, f8e4m3, f8e5m2, f64 or i8")
    rhs_dtype: DType = f.dtype("like lhs_dtype; the two may differ among the float8 types only")
    accumulate: bool = f.flag("start from the accumulator's content instead of zero", default=False)
    shape: tuple[int, ...] = f.shape("batch, m, n, k")
    accumulator: f.AccessPattern = f.operand(
        "float32 (i8: i32; f64: f64) result", of=_sum_dtype, over=_one_innermost, written=True, reads_if="accumulate"
    )
    lhs: f.AccessPattern = f.operand("left operand", of="lhs_dtype")
    rhs: f.AccessPattern = f.operand("right operand", of="rhs_dtype")


# ------------------------------------------------------------------------------------------------ vector


@instruction(
    0x40, "map1", Unit.VECTOR, meaning="result[i] = function(a[i])", numerics="See functions.", cost=costs.elementwise
)
class Map1(f.Queued):
    """Apply a unary function to every element."""

    function: Function = f.choice(Function, 8, "what is computed")
    dtype: DType = f.dtype("operand type")
    shape: tuple[int, ...] = f.shape("extents")
    result: f.AccessPattern = f.operand("result", of=_result_dtype, written=True)
    a: f.Operand = f.operand("operand", of=_operand_dtype(0), scalar=True)


@instruction(
    0x41,
    "map2",
    Unit.VECTOR,
    meaning="result[i] = function(a[i], b[i])",
    numerics="See functions.",
    cost=costs.elementwise,
)
class Map2(f.Queued):
    """Apply a binary function to every pair of elements."""

    function: Function = f.choice(Function, 8, "what is computed")
    dtype: DType = f.dtype("operand type; a predicate's result is i1")
    shape: tuple[int, ...] = f.shape("extents")
    result: f.AccessPattern = f.operand("result", of=_result_dtype, written=True)
    a: f.Operand = f.operand("first operand", of=_operand_dtype(0), scalar=True)
    b: f.Operand = f.operand("second operand", of=_operand_dtype(1), scalar=True)


@instruction(
    0x42,
    "map3",
    Unit.VECTOR,
    meaning="result[i] = function(a[i], b[i], c[i])",
    numerics="See functions.",
    cost=costs.elementwise,
)
class Map3(f.Queued):
    """Apply a ternary function to every triple of elements."""

    function: Function = f.choice(Function, 8, "what is computed")
    dtype: DType = f.dtype("operand and result type (select: of b and c; a is i1)")
    shape: tuple[int, ...] = f.shape("extents")
    result: f.AccessPattern = f.operand("result", of=_result_dtype, written=True)
    a: f.Operand = f.operand("first operand", of=_operand_dtype(0), scalar=True)
    b: f.Operand = f.operand("second operand", of=_operand_dtype(1), scalar=True)
    c: f.Operand = f.operand("third operand", of=_operand_dtype(2), scalar=True)


@instruction(
    0x43,
    "convert",
    Unit.VECTOR,
    meaning="result[i] = a[i] as result_dtype",
    numerics="Float to float: one rounding as said by rounding; overflow to infinity (f8e4m3: NaN), toward "
    "zero to the largest finite number; saturating, infinities become the largest finite number too; NaN "
    "gives the canonical NaN. Float to integer: toward zero, saturating, NaN gives 0 (i1: 1 from 1.0 up). "
    "Integer to float: nearest even. Integer to integer: low bits, sign- or zero-extended (i1 counts as 0 "
    "or 1; to i1: the lowest bit).",
    cost=costs.elementwise,
)
class Convert(f.Queued):
    """Change the type of every element."""

    dtype: DType = f.dtype("operand type")
    result_dtype: DType = f.dtype("result type")
    unsigned: bool = f.flag("the integer type involved is unsigned", default=False)
    rounding: Rounding = f.choice(Rounding, 2, "float to narrower float")
    shape: tuple[int, ...] = f.shape("extents")
    result: f.AccessPattern = f.operand("result", of="result_dtype", written=True)
    a: f.Operand = f.operand("operand", scalar=True)


@instruction(
    0x44,
    "reduce",
    Unit.VECTOR,
    meaning="along dimension 3, of extent n; w = min(n, 32):\n"
    "p[j] = a[j] for j < w; for j = w .. n-1 ascending: p[j mod w] = function(p[j mod w], a[j]);\n"
    "while w > 1: h = ceil(w / 2); p[j] = function(p[j], p[j + h]) for j < w - h; w = h;\n"
    "result[i0,i1,i2] = p[0]",
    numerics="Each step rounds as the function does. The order is part of the definition and the same on every chip.",
    cost=costs.reduction,
)
class Reduce(f.Queued):
    """Combine the elements along the innermost dimension."""

    function: Function = f.choice(Function, 8, "an associative function (see reductions)")
    dtype: DType = f.dtype("operand and result type")
    shape: tuple[int, ...] = f.shape("extents; dimension 3 is reduced")
    result: f.AccessPattern = f.operand("result; its stride along dimension 3 is 0", over=_one_innermost, written=True)
    a: f.AccessPattern = f.operand("operand")


@instruction(
    0x45,
    "iota",
    Unit.VECTOR,
    meaning="result[i] = low bits of (start + sum(i_d * r[steps[d]])), start the register's value",
    cost=costs.elementwise,
)
class Iota(f.Queued):
    """Write an affine function of the index: what arange and index arithmetic start from."""

    dtype: DType = f.dtype("integer type")
    start: int = f.register("value at (0,0,0,0)", default=0)
    steps: tuple[int, ...] = f.registers("increment along each dimension (register 0: none)", default=NONE)
    shape: tuple[int, ...] = f.shape("extents")
    result: f.AccessPattern = f.operand("result", written=True)


@instruction(
    0x46,
    "gather",
    Unit.VECTOR,
    meaning="result[i] = scratchpad element at source's address of (i0,i1,i2,i3) + index[i] * stride elements",
    numerics="Bits unchanged. An index outside the tile the compiler allocated reads what lies there.",
    cost=costs.pick,
)
class Gather(f.Queued):
    """Pick elements of a scratchpad tile by an index tile."""

    dtype: DType = f.dtype("element type; only its size matters")
    index_dtype: DType = f.dtype("i8, i16, i32 or i64")
    stride: int = f.unsigned(24, "elements an index counts")
    shape: tuple[int, ...] = f.shape("extents")
    result: f.AccessPattern = f.operand("result", written=True)
    source: f.AccessPattern = f.operand("tile picked from; its stride is 0 along the picked dimension", picked=True)
    index: f.AccessPattern = f.operand("indices", of="index_dtype")


Map = Map1 | Map2 | Map3
BlockTransfer = Load | Store
Bounded = Load | LoadIndexed | Store | StoreIndexed
"""Transfers with bounds along each dimension."""

Indexed = LoadIndexed | StoreIndexed | Atomic
"""Transfers whose elements are displaced by an index tile."""

Transfer = Bounded | Atomic
Vector = Map | Convert | Reduce | Iota
Tiled = Transfer | MatrixMultiply | Vector | Gather
"""All that run over tiles: every instruction of a queue but those that only synchronise."""

Branch = BranchZero | BranchNonzero
