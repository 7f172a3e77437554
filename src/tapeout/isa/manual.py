"""The instruction set manual: Markdown, generated from the definitions. `render()` gives the whole text."""

from collections.abc import Callable, Iterable, Sequence

from tapeout.isa import definitions
from tapeout.isa.cost import Cost
from tapeout.isa.fields import (
    BY_MNEMONIC,
    IS_REGISTER_BIT,
    LENGTH_BITS,
    OPCODE_BITS,
    REGISTER_BIT,
    REGISTER_COUNT,
    REGISTRY,
    SCRATCHPAD_ADDRESS_BITS,
    SEMAPHORE_COUNT,
    STRIDE_BITS,
    STRIDES_BIT,
    TILE_BITS,
    WORD_BITS,
    AccessPattern,
    Field,
    Instruction,
    RegisterValue,
    Unit,
)
from tapeout.isa.program import show
from tapeout.isa.verify import about_fields
from tapeout.numerics.dtypes import CANONICAL_NAN, DType
from tapeout.numerics.functions import ACCURACY_ULP
from tapeout.numerics.listing import listing
from tapeout.numerics.operations import (
    REDUCTION_PARTIALS,
    REDUCTIONS,
    AtomicFunction,
    Function,
    Rounding,
)

TITLE_OF_UNIT = {
    Unit.SEQUENCER: "Sequencer",
    Unit.LOAD: "Load queue",
    Unit.STORE: "Store queue",
    Unit.MATRIX: "Matrix queue",
    Unit.VECTOR: "Vector queue",
}

_MACHINE = f"""
A core has a scalar sequencer, four in-order queues with their engines (load DMA, store DMA, matrix, vector), a
scratchpad, {REGISTER_COUNT} registers at most and {SEMAPHORE_COUNT - 1} counting semaphores at most.

{definitions.__doc__.strip().partition(chr(10) * 2)[2] if definitions.__doc__ else ""}

- **Registers** hold 64 bits. `r0` reads as zero and ignores writes. All are zero when a core starts. A queued
  instruction takes the values of the registers it names when it is issued; later changes do not reach it.
- **Semaphores** start at zero and must be zero when the program halts. `s0` stands for none: waiting for it is not
  waiting, giving it does nothing. The queues of a core share them; cores do not.
- **Issue** stops the sequencer while the queue it issues to is full.
- **Order**: two instructions of different queues that touch the same byte of the scratchpad or of HBM, one of them
  writing, must be ordered by semaphores, `wait` or `drain`. A program in which they are not is wrong, whatever its
  timing. The accesses of one queue happen in order. Those of different cores are ordered by atomics only.
- **Grid**: the programs of a launch are dealt to the cores in turn; `next_program` takes the next one.
- **Cost** is that of pipelined cores; what follows "microcoded" is that of cores of the other design (`core.design`),
  of which there is RTL. Those issue an instruction to a queue in four cycles, one for every further word and one for
  each register it may name and one more; the queue's front reads it as slowly. Two cycles go by, and one for each
  semaphore that is given, before the engine takes the next.
"""

_ASSEMBLY = """
One instruction a line: the mnemonic, then `field=value` for every field that is not at its default, in any order.
`;` starts a comment, `name:` is a label. Registers are `r7`, semaphores `s3`, four registers `r1,r2,r0,r0`, extents
`1x1x8x64`. A tile is `@address+register{strides}`: element (i0, i1, i2, i3) of `@0x100+r5{64,0,8,1}` lies at byte
`0x100 + r5 + (64*i0 + 8*i2 + i3) * element size`; a stride of 0 repeats the element along that dimension. An operand
may be a register where the manual says "tile or register": every element is then the register's low bits.
"""

_RULES = """
- Every operation rounds once, to nearest even. Subnormal numbers are kept, on input and output.
- A NaN that arithmetic or a conversion produces is the canonical NaN of its type. `neg`, `abs`, `copy`, `select`,
  `gather` and DMA move bits.
- bf16 and f16 arithmetic widens to f32, which is exact, computes there, and rounds to the type. For `add`, `sub`,
  `mul`, `div` and `sqrt` the result is the correctly rounded one. f8e4m3 and f8e5m2 are types of storage and of
  matrix operands only.
- f64 is an option of the chip.
- `mul` followed by `add` is two roundings; only `fma` fuses.
- Integers wrap; there are no flags and no traps.
- Special functions are defined by the sequences of f32 and integer operations listed at the end, the same on every
  chip. Their largest errors are in the table of functions, in units of the last place of the exact result.
"""

EXAMPLE_OF_KIND: dict[str, object] = {
    "register": 5,
    "registers": (0, 0, 2, 3),
    "unsigned": 1,
    "rotation": 4096,
    "signed": 128,
    "flag": False,
    "dtype": DType.F32,
    "AtomicFunction": AtomicFunction.ADD,
    "Rounding": Rounding.NEAREST_EVEN,
    "shape": (1, 1, 8, 64),
    "target": 12,
    "tile": AccessPattern(0x1000, (0, 0, 64, 1)),
    "written tile": AccessPattern(0x2000, (0, 0, 64, 1)),
    "tile or register": AccessPattern(0x3000, (0, 0, 64, 1)),
}
FUNCTION_OF_EXAMPLE = {1: Function.EXP2, 2: Function.ADD, 3: Function.FMA}
EXAMPLE_FIELDS: dict[str, object] = {
    "index_dtype": DType.I32,
    "mask": RegisterValue(0),
    "semaphore": 3,
    "wait_a": 1,
    "signal_a": 2,
}
EXAMPLES: dict[str, dict[str, object]] = {
    "scalar": {"dtype": DType.I64, "a": 6, "b": 7, "function": Function.ADD},
    "scalar_convert": {"dtype": DType.I16},
    "iota": {"dtype": DType.I32},
    "rotate": {"step": 4096, "limit": 12288},
    "convert": {"result_dtype": DType.BF16},
    "load": {"low": (0, 0, 6, 0), "high": (0, 0, 7, 8)},
    "reduce": {"function": Function.ADD, "result": AccessPattern(0x2000, (0, 0, 1, 0))},
    "gather": {"source": AccessPattern(0x1000, (0, 0, 64, 0))},
    "matrix_multiply": {
        "lhs_dtype": DType.BF16,
        "rhs_dtype": DType.BF16,
        "shape": (1, 32, 64, 128),
        "accumulator": AccessPattern(0x2000, (0, 64, 1, 0)),
        "lhs": AccessPattern(0x6000, (0, 128, 0, 1)),
        "rhs": AccessPattern(0x8000, (0, 0, 1, 64)),
    },
}
"""Fields of an instruction's example that the table of kinds would get wrong or leave dull."""


def example(kind: type[Instruction]) -> Instruction:
    """A legal instruction of a kind, for the manual."""
    values: dict[str, object] = {}
    for field in kind.fields:
        if field.kind == "Function":
            values[field.name] = FUNCTION_OF_EXAMPLE[int(kind.mnemonic[-1]) if kind.mnemonic.startswith("map") else 1]
        elif field.kind == "semaphore":
            values[field.name] = EXAMPLE_FIELDS.get(field.name, 0)
        else:
            values[field.name] = EXAMPLE_FIELDS.get(field.name, EXAMPLE_OF_KIND[field.kind])
    item = kind(**{**values, **EXAMPLES.get(kind.mnemonic, {})})
    assert not list(about_fields(item)), f"the example of {kind.mnemonic} is illegal"
    return item


def render() -> str:
    """The manual."""
    kinds = sorted(REGISTRY.values(), key=lambda kind: kind.opcode)
    parts = [
        "# Instruction set",
        "Generated by `tapeout isa` from `src/tapeout/isa` and `src/tapeout/numerics`; do not edit.",
        "## The machine",
        _MACHINE.strip(),
        "## Assembly",
        _ASSEMBLY.strip(),
        "## Encoding",
        *_encoding(),
        "## Element types",
        _dtypes(),
        "## Instructions",
        _summary(kinds),
    ]
    for unit in Unit:
        parts.append(f"### {TITLE_OF_UNIT[unit]}")
        for kind in kinds:
            if kind.unit is unit:
                parts += _page(kind)
    parts += ["## Functions", *_functions(), "## Numerics", _RULES.strip()]
    for function in ACCURACY_ULP:
        lines = "\n".join(listing(function, DType.F32))
        parts += [f"### {function.label}", f"{_sentence(function.summary)} Operand a, f32.", f"```\n{lines}\n```"]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _summary(kinds: list[type[Instruction]]) -> str:
    rows = (
        (
            f"`{kind.opcode:#04x}`",
            f"[{kind.mnemonic}](#{kind.mnemonic})",
            kind.unit.value,
            kind.word_count,
            _prose(kind),
        )
        for kind in kinds
    )
    return _table(("Opcode", "Instruction", "Unit", "Words", "Summary"), rows)


def _prose(kind: type[Instruction]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _paragraph(cost: Callable[..., Cost]) -> str:
    return " ".join((cost.__doc__ or "").split())


def _page(kind: type[Instruction]) -> list[str]:
    return [
        f"#### {kind.mnemonic}",
        _prose(kind),
        f"```\n{show(example(kind))}\n```",
        f"Meaning:\n\n```\n{kind.meaning}\n```",
        f"Numerics: {kind.numerics}\n\nCost: {_paragraph(kind.cost)}",
        _table(("Bits", "Field", "Kind", "What it is"), _fields_of(kind)),
    ]


def _fields_of(kind: type[Instruction]) -> Iterable[tuple[object, ...]]:
    yield _bits(0, OPCODE_BITS), "", "opcode", f"`{kind.opcode:#04x}`"
    yield _bits(OPCODE_BITS, LENGTH_BITS), "", "length", f"{kind.word_count} word{'s' * (kind.word_count > 1)}"
    for field, offset in zip(kind.fields, kind.offsets, strict=True):
        yield _bits(offset, field.width), f"`{field.name}`", field.kind, _field_text(field)


def _field_text(field: Field) -> str:
    return f"{field.doc} (register 0 if left out)" if field.kind == "register" and field.default == 0 else field.doc


def _bits(offset: int, width: int) -> str:
    """ "2:11..4" is bits 4 to 11 of word 2."""
    word, low = divmod(offset, WORD_BITS)
    if low + width > WORD_BITS:
        return f"{word}:{low} to {(offset + width - 1) // WORD_BITS}:{(offset + width - 1) % WORD_BITS}"
    return f"{word}:{low}" if width == 1 else f"{word}:{low + width - 1}..{low}"


def _encoding() -> list[str]:
    return [
        f"An instruction is one or more {WORD_BITS}-bit little-endian words. The first begins with the opcode "
        f"({OPCODE_BITS} bits) and the number of words ({LENGTH_BITS} bits). Bits are written `word:high..low`. Bits "
        "that no field uses are zero. A target is the number of the word an instruction begins at.",
        "Fields wider than a number:",
        _table(
            ("Kind", "Bits", "What"),
            (
                ("registers", "7..0, 15..8, 23..16, 31..24", "one register for each dimension, outermost first"),
                ("shape", "15..0, 31..16, 47..32, 63..48", "extents 1 to 65535, outermost first"),
                ("tile", f"{SCRATCHPAD_ADDRESS_BITS - 1}..0", "scratchpad address, bytes"),
                ("", f"{IS_REGISTER_BIT - 1}..{REGISTER_BIT}", "register added to the address"),
                ("", f"{IS_REGISTER_BIT}", "0: tile; 1: the operand is the register's value and the strides are zero"),
                (
                    "",
                    f"{TILE_BITS - 1}..{STRIDES_BIT}",
                    f"four {STRIDE_BITS}-bit strides in elements, two's complement",
                ),
            ),
        ),
    ]


def _dtypes() -> str:
    rows = []
    for dtype in DType:
        nan = f"`{CANONICAL_NAN[dtype]:#x}`" if dtype in CANONICAL_NAN else ""
        rows.append((f"`{dtype}`", dtype.code, dtype.size_bytes, nan, TEXT_OF_DTYPE[dtype]))
    return _table(("Type", "Code", "Bytes", "Canonical NaN", "What"), rows)


TEXT_OF_DTYPE = {
    DType.F32: "IEEE 754 binary32",
    DType.BF16: "the upper half of an f32",
    DType.F16: "IEEE 754 binary16",
    DType.F8E4M3: "OCP FP8 E4M3: no infinities, largest 448",
    DType.F8E5M2: "OCP FP8 E5M2: largest 57344",
    DType.F64: "IEEE 754 binary64; an option of the chip",
    DType.I1: "in memory a byte, true if not 0, written as 0 or 1; in a register the lowest bit",
    DType.I8: "integers have no sign of their own: functions say how they read them",
    DType.I16: "",
    DType.I32: "",
    DType.I64: "",
}


def _functions() -> list[str]:
    rows = []
    for function in Function:
        accuracy = f"{ACCURACY_ULP[function]} ulp" if function in ACCURACY_ULP else ""
        rows.append(
            (
                f"`{function.label}`",
                function.code,
                function.arity,
                " ".join(map(str, function.dtypes)),
                "i1" if function.is_predicate else "",
                function.summary,
                accuracy,
            )
        )
    reductions = ", ".join(f"`{function.label}`" for function in REDUCTIONS)
    atomics = ", ".join(f"`{function.label}` {function.code}" for function in AtomicFunction)
    roundings = ", ".join(f"`{rounding.label}` {rounding.code}" for rounding in Rounding)
    return [
        "What `map1`, `map2`, `map3`, `reduce` and, on integers, `scalar` compute. Operands are a, b, c.",
        _table(("Function", "Code", "Operands", "Types", "Result", "Meaning", "Error"), rows),
        f"Reductions: {reductions}. They keep {REDUCTION_PARTIALS} partial results.",
        f"Atomic functions and their codes: {atomics}.",
        f"Roundings and their codes: {roundings}.",
    ]


assert set(TEXT_OF_DTYPE) == set(DType) and set(EXAMPLES) <= set(BY_MNEMONIC)
