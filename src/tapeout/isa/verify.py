"""Is a Program legal on a chip? What can be told without running it.

`verify` takes a Program and a Chip and raises `IllegalProgram` with every complaint, each with the
instruction's place, what was seen and what is allowed. Races, deadlocks and addresses that registers decide
are found by the reference evaluator.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

from tapeout.chip import Chip
from tapeout.errors import TapeoutError
from tapeout.isa import definitions as isa
from tapeout.isa.fields import AccessPattern, EncodingError, Instruction, OperandUse, RegisterValue, Unit, tiles
from tapeout.isa.program import Program, encode
from tapeout.numerics.dtypes import DType
from tapeout.numerics.functions import FLOAT8, MATRIX_DTYPES
from tapeout.numerics.operations import ATOMIC_MEANING, INTEGERS, REDUCTIONS, Function

INDEX_DTYPES = (DType.I32, DType.I64)
MAP_OF_ARITY: dict[int, type[Instruction]] = {1: isa.Map1, 2: isa.Map2, 3: isa.Map3}
SHOWN_COMPLAINTS = 10


class IllegalProgram(TapeoutError):
    """A program no chip, or not this one, can run. `complaints` are single sentences with their place."""

    def __init__(self, name: str, complaints: list[str]):
        shown = complaints[:SHOWN_COMPLAINTS]
        if len(complaints) > len(shown):
            shown.append(f"... and {len(complaints) - len(shown)} more")
        super().__init__("\n".join([f"program {name} is illegal:", *shown]))
        self.complaints = complaints


def verify(program: Program, chip: Chip) -> Program:
    """The program itself, if it is legal on the chip; else raises IllegalProgram."""
    found = list(complaints(program, chip))
    if found:
        raise IllegalProgram(program.name, found)
    return program


def complaints(program: Program, chip: Chip) -> Iterator[str]:
    """Everything that is wrong, in program order."""
    yield from _about_program(program, chip)
    for index, item in enumerate(program.instructions):
        place = f"{program.location(index)}: instruction {index} ({item.mnemonic}): "
        try:
            encode([item] if item.target_index is None else [type(item)(**{**_fields(item), "target": 0})])
        except EncodingError as error:
            yield place + str(error)
            continue
        sentences = [*about_fields(item), *_about_chip(item, chip), *_about_target(item, program)]
        if not sentences:
            sentences = list(_about_tiles(item, program.scratchpad_bytes))
        yield from (place + sentence for sentence in sentences)


def _fields(item: Instruction) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in item.fields}


def _about_program(program: Program, chip: Chip) -> Iterator[str]:
    available = chip.core.scratchpad.size_bytes
    if program.scratchpad_bytes > available:
        yield f"needs {program.scratchpad_bytes} bytes of scratchpad; a core of {chip.name} has {available}"
    last = program.instructions[-1] if program.instructions else None
    if not isinstance(last, (isa.Halt, isa.Jump, isa.Trap)):
        yield "the last instruction is not halt, jump or trap, so a core would run past the end"
    if program.lines and len(program.lines) != len(program.instructions):
        yield f"{len(program.lines)} source lines for {len(program.instructions)} instructions"


def _about_target(item: Instruction, program: Program) -> Iterator[str]:
    if item.target_index is not None and not 0 <= item.target_index < len(program.instructions):
        yield f"target {item.target_index} is outside the program's {len(program.instructions)} instructions"
    if isinstance(item, isa.Argument) and item.index >= len(program.parameters):
        yield f"argument {item.index} is read; the program has {len(program.parameters)} parameters"


# --------------------------------------------------------------------------------------- fields that must
# agree


def about_fields(item: Instruction) -> Iterator[str]:
    """Yield the faults of an instruction on any chip: fields that do not go together."""
    yield from FIELD_RULES.get(type(item), _no_rule)(item)


def _no_rule(item: Instruction) -> Iterator[str]:
    yield from ()


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))


def _defined(function: Function, dtype: DType) -> Iterator[str]:
    if dtype not in function.dtypes:
        yield f"{function.label} is not defined on {dtype}; it is on {_listed(function.dtypes)}"


def _axis(item: isa.ProgramId | isa.GridSize) -> Iterator[str]:
    if item.axis > 2:
        yield f"axis {item.axis} is not 0, 1 or 2"


def _wait(item: isa.Wait) -> Iterator[str]:
    if item.semaphore == 0:
        yield "semaphore 0 stands for none; wait needs one of the others"


def _scalar(item: isa.Scalar) -> Iterator[str]:
    function, dtype = item.function, item.dtype
    if dtype.is_float:
        yield f"the scalar unit has no {dtype}; use an integer type, or the vector unit"
    elif function.arity > 2:
        yield f"{function.label} takes {function.arity} operands; scalar functions take one or two"
    else:
        yield from _defined(function, dtype)


def _scalar_convert(item: isa.ScalarConvert) -> Iterator[str]:
    if item.dtype.is_float:
        yield f"the scalar unit has no {item.dtype}; use an integer type"


def _indexed(item: isa.Indexed) -> Iterator[str]:
    if item.index_dtype not in INDEX_DTYPES:
        yield f"index_dtype={item.index_dtype} is not one of {_listed(INDEX_DTYPES)}"


def _atomic(item: isa.Atomic) -> Iterator[str]:
    yield from _indexed(item)
    combine = ATOMIC_MEANING.get(item.function)
    if combine is not None and item.dtype not in combine.dtypes:
        allowed = _listed(combine.dtypes)
        yield f"atomic {item.function.label} is not defined on {item.dtype}; it is on {allowed}"


def _matrix(item: isa.MatrixMultiply) -> Iterator[str]:
    left, right = item.lhs_dtype, item.rhs_dtype
    if left not in MATRIX_DTYPES:
        yield f"the matrix engine does not multiply {left}; it does {_listed(MATRIX_DTYPES)}"
    elif left is not right and not (left in FLOAT8 and right in FLOAT8):
        yield f"lhs_dtype={left} and rhs_dtype={right}: only the float8 types may be mixed"
    for name, tile, dimension, letter in (
        ("lhs", item.lhs, 2, "n"),
        ("rhs", item.rhs, 1, "m"),
        ("accumulator", item.accumulator, 3, "k"),
    ):
        stride = tile.strides[dimension]
        if stride:
            yield f"{name} does not vary along {letter}, so its stride there must be 0, not {stride}"


def _map(item: isa.Map) -> Iterator[str]:
    kind = MAP_OF_ARITY[item.function.arity]
    if type(item) is not kind:
        yield f"{item.function.label} takes {item.function.arity} operands: use {kind.mnemonic}"
    yield from _defined(item.function, item.dtype)


def _reduce(item: isa.Reduce) -> Iterator[str]:
    if item.function not in REDUCTIONS:
        yield f"{item.function.label} is not a reduction; those are {_listed(f.label for f in REDUCTIONS)}"
    else:
        yield from _defined(item.function, item.dtype)
    if item.result.strides[3]:
        yield f"dimension 3 is reduced, so the result's stride there must be 0, not {item.result.strides[3]}"


def _iota(item: isa.Iota) -> Iterator[str]:
    if item.dtype not in INTEGERS:
        yield f"iota is not defined on {item.dtype}; it is on {_listed(INTEGERS)}"


def _gather(item: isa.Gather) -> Iterator[str]:
    if item.index_dtype not in INTEGERS:
        yield f"index_dtype={item.index_dtype} is not one of {_listed(INTEGERS)}"


FIELD_RULES: dict[type, Callable[[Any], Iterator[str]]] = {
    isa.ProgramId: _axis,
    isa.GridSize: _axis,
    isa.Wait: _wait,
    isa.Scalar: _scalar,
    isa.ScalarConvert: _scalar_convert,
    isa.LoadIndexed: _indexed,
    isa.StoreIndexed: _indexed,
    isa.Atomic: _atomic,
    isa.MatrixMultiply: _matrix,
    isa.Map1: _map,
    isa.Map2: _map,
    isa.Map3: _map,
    isa.Reduce: _reduce,
    isa.Iota: _iota,
    isa.Gather: _gather,
}

# ------------------------------------------------------------------------------------------- what the chip
# has


def _about_chip(item: Instruction, chip: Chip) -> Iterator[str]:
    for field in item.fields:
        value = getattr(item, field.name)
        for register in _registers(field.kind, value):
            if register >= chip.core.register_count:
                yield f"{field.name} names r{register}; {chip.name} has r0 to r{chip.core.register_count - 1}"
        if field.kind == "semaphore" and value >= chip.core.semaphore_count:
            yield f"{field.name} names s{value}; {chip.name} has s1 to s{chip.core.semaphore_count - 1}"
    dtypes = {getattr(item, field.name) for field in item.fields if field.kind == "dtype"}
    computes = item.unit in (Unit.MATRIX, Unit.VECTOR) and not isinstance(item, isa.Gather)
    if computes and DType.F64 in dtypes and not chip.core.vector.float64:
        yield f"{chip.name} has no f64; a chip has it if vector.float64_rate is not 0"
    if isinstance(item, isa.MatrixMultiply):
        for dtype in sorted(dtypes & set(MATRIX_DTYPES) - {DType.F64}, key=str):  # f64 runs at the vector engine's rate
            name = dtype.long_name
            if chip.core.matrix.multiply_accumulates_per_cycle(name) == 0:
                yield f"the matrix engine of {chip.name} does not multiply {dtype} (matrix.{name}_rate is 0)"


def _registers(kind: str, value: Any) -> tuple[int, ...]:
    if kind == "register":
        return (value,)
    if kind == "registers":
        return tuple(value)
    if isinstance(value, (AccessPattern, RegisterValue)):
        return (value.register,)
    return ()


# ------------------------------------------------------------------------------------------ tiles in the
# scratchpad


class _Tile:
    """An operand as the instruction walks it: which bytes, relative to its register's value."""

    def __init__(self, use: OperandUse, pattern: AccessPattern):
        self.name = use.name
        self.register = pattern.register
        self.size = size = use.dtype.size_bytes
        self.is_written = is_written = use.writes
        self.is_picked = use.picked
        self.base = pattern.base
        # Dimensions of extent 1 and, for what is read, broadcast ones do not matter.
        self.steps = [
            (stride * size, extent)
            for stride, extent in zip(pattern.strides, use.extents, strict=True)
            if extent > 1 and (stride or is_written)
        ]
        self.first = self.base + sum(min(0, step * (extent - 1)) for step, extent in self.steps)
        self.end = self.base + sum(max(0, step * (extent - 1)) for step, extent in self.steps) + size

    def is_same_as(self, other: "_Tile") -> bool:
        return (self.register, self.base, self.size, self.steps) == (
            other.register,
            other.base,
            other.size,
            other.steps,
        )

    def starts(self) -> set[int]:
        """Addresses of all elements."""
        walk = product(*(range(0, step * extent, step) if step else [0] * extent for step, extent in self.steps))
        return {self.base + sum(offsets) for offsets in walk}

    def overlaps_itself(self) -> bool:
        reach = self.size
        for step, extent in sorted((abs(step), extent) for step, extent in self.steps):
            if step < reach:
                count = 1
                for _, extent in self.steps:
                    count *= extent
                return len(self.starts()) != count
            reach += step * (extent - 1)
        return False

    def overlaps(self, other: "_Tile") -> bool:
        if self.register != other.register or self.end <= other.first or other.end <= self.first:
            return False
        mine = {start + byte for start in self.starts() for byte in range(self.size)}
        return any(start + byte in mine for start in other.starts() for byte in range(other.size))


def _about_tiles(item: Instruction, scratchpad_bytes: int) -> Iterator[str]:
    if isinstance(item, (isa.ScalarLoad, isa.ScalarStore)):
        size = item.dtype.size_bytes
        if item.offset == 0 and item.address + size > scratchpad_bytes:
            yield f"address {item.address:#x} is outside the {scratchpad_bytes} bytes the program declares"
        if item.offset == 0 and item.address % size:
            yield f"address {item.address:#x} is not a multiple of the element's {size} bytes"
        return
    found = []
    for use, pattern in tiles(item):
        tile = _Tile(use, pattern)
        found.append(tile)
        if tile.register == 0 and tile.base % tile.size:
            yield f"{use.name} begins at {tile.base:#x}, not a multiple of the element's {tile.size} bytes"
        if tile.register == 0 and (tile.first < 0 or tile.end > scratchpad_bytes):
            yield (
                f"{use.name} covers bytes {tile.first:#x} to {tile.end - 1:#x}, outside the {scratchpad_bytes} bytes "
                "the program declares"
            )
    for result in (tile for tile in found if tile.is_written):
        if result.overlaps_itself():
            yield f"elements of {result.name} overlap each other; give every dimension a stride of its own"
        for source in (tile for tile in found if not tile.is_written and not tile.is_picked):
            if not source.is_same_as(result) and source.overlaps(result):
                yield f"{result.name} and {source.name} overlap without being the same tile"
