"""Interface between generated code and the native runtime: the structures both sides read and write.

Every member is one 64-bit word, or an array of them, so an offset is a word number. The C++ side is written from
here (`header`), the generated side asks for offsets (`offset_of`). Nothing else knows the layout.
"""

from tapeout.numerics.dtypes import DType

FAILURES = ("none", "trap", "outside_hbm", "foreign_pointer", "misaligned_pointer", "endless_wait")
"""Reasons why a launch failed, by number. Behind them come the findings of the sanitizer."""

FINDINGS = ("outside_every_tensor", "never_written", "scratchpad_never_written", "race", "value_born")
"""Findings of the sanitizer, in that order."""

CHECKED_OPERANDS = 5
"""Operands of an instruction, at most."""

COUNTERS = ("sequencer", "load", "store", "matrix", "vector", "hbm_read_bytes", "hbm_written_bytes")

FUNCTIONS = (
    "next_program",
    "trap",
    "load_block",
    "store_block",
    "view_block",
    "place_block",
    "separate",
    "finish_store",
    "load_indexed",
    "store_indexed",
    "atomic",
    "matrix_multiply",
    "pick",
    "turn",
    "examine",
    "inspect",
    "note_scalar",
)
"""Functions of the native runtime that generated code calls, through addresses in the context."""


STRUCTURES: dict[str, tuple[tuple[str, int], ...]] = {
    # One host thread's view of a launch: the only argument of a kernel's entry.
    "Context": (
        ("arguments", 1),
        ("grid", 3),
        ("program", 3),
        ("scratchpad", 1),
        ("workspace", 1),
        *((name, 1) for name in COUNTERS),
        *((f"call_{name}", 1) for name in FUNCTIONS),
        ("linear", 1),
        ("linear_end", 1),
        ("changes", 1),  # atomics that changed memory so far
        ("turn_place", 1),  # the last turn of a loop that may wait: where, ...
        ("turn_state", 1),  # ... the registers' hash, ...
        ("turn_changes", 1),  # ... `changes` then, ...
        ("turn_count", 1),  # ... and how many turns there had been like it
        ("launch", 1),
        ("thread", 1),
    ),
    # Facts of a DMA instruction known when the kernel is compiled; strides in bytes.
    "BlockFacts": (("instruction", 1), ("element_bytes", 1), ("extent", 4), ("tile_stride", 4)),
    # The same for indexed DMA and atomics. `function` and `dtype` are used by atomics only. `has_index_tile`,
    # `has_mask_tile`: the operand is a tile, not a register.
    "IndexedFacts": (
        ("instruction", 1),
        ("element_bytes", 1),
        ("extent", 4),
        ("tile_stride", 4),
        ("index_bytes", 1),
        ("scale", 1),
        ("index_stride", 4),
        ("mask_stride", 4),
        ("other_stride", 4),
        ("previous_stride", 4),
        ("function", 1),
        ("dtype", 1),
        ("has_index_tile", 1),
        ("has_mask_tile", 1),
    ),
    # Register values of a DMA instruction.
    "BlockValues": (("base", 1), ("stride", 4), ("low", 4), ("high", 4), ("fill", 1)),
    # A block that generated code may read or write where it lies: in HBM if it is `direct`, else in its tile.
    # `stride` in bytes; [first, end) are the addresses in HBM it touches.
    "View": (
        ("pointer", 1),
        ("stride", 4),
        ("first", 1),
        ("end", 1),
        ("direct", 1),
        ("facts", 1),
        ("values", 1),
        ("tile", 1),
        ("previous", 1),
    ),
    # What the sanitizer knows of an instruction (`checks`). memory: 0 not touched, 1 read, 2 written, 3 updated.
    # Operands: bytes of an element, its type, written, in a register, start, extents, strides in bytes.
    "CheckFacts": (
        ("instruction", 1),
        ("memory", 1),
        ("element_bytes", 1),
        ("extent", 4),
        ("index_operand", 1),
        ("mask_operand", 1),
        ("scale", 1),
        ("gather_operand", 1),
        ("watch_values", 1),
        ("operand_count", 1),
        ("operands", 13 * CHECKED_OPERANDS),
    ),
    # offset: what a register adds to each operand's address, or the operand itself.
    "CheckValues": (("base", 1), ("stride", 4), ("low", 4), ("high", 4), ("offset", CHECKED_OPERANDS)),
    # extent is (batch, m, n, k); strides in bytes along the same. Those of the operands are passed apart. From
    # operand_limit on: of an analogue engine, else 0; `_bits` are those of a float32.
    "MatrixFacts": (
        ("lhs_dtype", 1),
        ("rhs_dtype", 1),
        ("accumulate", 1),
        ("extent", 4),
        ("accumulator_stride", 4),
        ("operand_limit", 1),
        ("sum_limit", 1),
        ("sum_depth", 1),
        ("sum_step_bits", 1),
        ("noise_bits", 1),
        ("noise_seed", 1),
    ),
    # Scratchpad gather; strides and step in bytes.
    "PickFacts": (
        ("element_bytes", 1),
        ("index_bytes", 1),
        ("step", 1),
        ("extent", 4),
        ("result_stride", 4),
        ("source_stride", 4),
        ("index_stride", 4),
    ),
}


def offset_of(structure: str, member: str, index: int = 0) -> int:
    """Byte offset of a member, or of an element of an array member."""
    words = 0
    for name, count in STRUCTURES[structure]:
        if name == member:
            return 8 * (words + index)
        words += count
    raise KeyError(f"{structure} has no member {member!r}")


def size_of(structure: str) -> int:
    return 8 * sum(count for _, count in STRUCTURES[structure])


def _enumeration(name: str, members: dict[str, int]) -> str:
    return f"enum {name} : int64_t {{ {', '.join(f'{member} = {number}' for member, number in members.items())} }};"


def header() -> str:
    """The structures as C++ declarations."""
    lines = ["#pragma once", "#include <cstdint>"]
    lines.append(_enumeration("DType", {dtype.name: dtype.code for dtype in DType}))
    kinds = {name: number for number, name in enumerate((*FAILURES, *FINDINGS))}
    lines.append(f"namespace failure_kind {{ {_enumeration('Kind', kinds)} }}")
    for structure, members in STRUCTURES.items():
        lines.append(f"struct {structure} {{")
        lines += [f"    int64_t {name}{f'[{count}]' if count > 1 else ''};" for name, count in members]
        lines.append("};")
    lines.append("#define TAPEOUT_COUNTERS(X) " + " ".join(f"X({name})" for name in COUNTERS))
    lines.append("#define TAPEOUT_FUNCTIONS(X) " + " ".join(f"X({name})" for name in FUNCTIONS))
    return "\n".join(lines) + "\n"
