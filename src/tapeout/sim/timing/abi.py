"""Interface between Python and `fast.cpp`: structures of 64-bit words and enumerations, stated once.

`header()` is C++; a `Layout` packs named values into the words of its structure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tapeout.chip.description import MICROCODED_LANES
from tapeout.isa import Unit, microcoded_cycles
from tapeout.isa.costs import TAKEN_BRANCH_CYCLES
from tapeout.isa.fields import QUEUES
from tapeout.numerics.operations import Function
from tapeout.sim.ordering import NUMBER_OF_AGENT
from tapeout.sim.timing.memory import GAP_COUNT, POSTPONED_REFRESHES
from tapeout.sim.timing.network import LINK_GAP_COUNT, REQUEST_BYTES, TICKS
from tapeout.sim.timing.result import REASONS
from tapeout.sim.timing.trace import ASSUMED_INDEX_RANGE
from tapeout.sim.timing.transfers import REQUESTS_PER_PACKET

READ_COUNT = 5
AGENTS = (*QUEUES, Unit.SEQUENCER)
"""Agents of a core in the order in which they step at equal times."""

KINDS = (
    "HALT",
    "JUMP",
    "BRANCH_ZERO",
    "BRANCH_NONZERO",
    "NEXT_PROGRAM",
    "PROGRAM_ID",
    "GRID_SIZE",
    "ARGUMENT",
    "WORKSPACE",
    "LOAD_IMMEDIATE",
    "SCALAR",
    "SCALAR_SELECT",
    "SCALAR_CONVERT",
    "ROTATE",
    "SCALAR_LOAD",
    "SCALAR_STORE",
    "WAIT",
    "DRAIN",
    "TRAP",
    "SYNC",
    "ATOMIC",
    "OTHER",
)
"""Kinds of instruction that the sequencer, or a DMA engine, treats specially."""

FAILURES = (
    "NO_FAILURE",
    "DEADLOCK",
    "PAST_END",
    "DATA_MISSING",
    "TRACE_TOO_SHORT",
    "TRAPPED",
    "NO_ARGUMENT",
    "UNKNOWN_FUNCTION",
)


@dataclass(frozen=True)
class Layout:
    """A structure whose members are words or arrays of words."""

    name: str
    members: tuple[tuple[str, int], ...]

    @cached_property
    def offsets(self) -> dict[str, tuple[int, int]]:
        offsets, position = {}, 0
        for name, count in self.members:
            offsets[name] = (position, count)
            position += count
        return offsets

    @cached_property
    def word_count(self) -> int:
        return sum(count for _, count in self.members)

    def pack(self, values: Mapping[str, object]) -> list[int]:
        """Words of the structure; members that are not given are 0."""
        words = [0] * self.word_count
        for name, value in values.items():
            at, count = self.offsets[name]
            given = [int(value)] if isinstance(value, int) else [int(v) for v in value]  # type: ignore[attr-defined]
            if len(given) > count:
                raise ValueError(f"{self.name}.{name}: {len(given)} words do not fit into {count}")
            words[at : at + len(given)] = given
        return words

    def declaration(self) -> str:
        members = "".join(f"    Word {name}{f'[{count}]' if count > 1 else ''};\n" for name, count in self.members)
        return f"struct {self.name} {{\n{members}}};\n"


def _words(text: str) -> tuple[tuple[str, int], ...]:
    """Members from "a b[4] c"."""
    parts = (part.rstrip("]").partition("[") for part in text.split())
    return tuple((name, int(count or 1)) for name, _, count in parts)


TILE = Layout("Tile", _words("shape base reg first end"))
_OP_MEMBERS = _words(
    "kind unit issue_cycles front_cycles release_cycles dispatch_cycles "
    "wait_a wait_b signal_a signal_b occupancy conflict latency fill first_result last_read "
    "destination a b condition function bits value limit size is_indexed base scale has_index_tile index_register "
    "index_bits has_mask_tile varies has_written is_single_group read_count sum_read strides[4] low[4] high[4] "
    "extent[4] index_own[4] mask_own[4] conflicts[4] vector_cycles first_request_cycles row_ticks least_cycles"
)
OP = Layout("Op", (*_OP_MEMBERS, ("written", TILE.word_count), ("reads", READ_COUNT * TILE.word_count)))
CHIP = Layout(
    "ChipFacts",
    _words(
        "core_count queue_depth is_microcoded handover_cycles lane_count fixed_latency_ticks "
        "line_bytes slice_count set_count way_count slice_bytes_per_cycle "
        "latency_ticks burst_bytes burst_ticks channel_count bank_count stripes_per_row interleave_bytes "
        "hbm_latency_ticks row_miss_ticks refresh_interval_ticks bank_refresh_ticks read_to_write_ticks "
        "write_to_read_ticks batch_bursts has_dram has_network is_crossbar is_ring station_count column_count at_edges "
        "border_columns hop_ticks border_hop_ticks link_bytes_per_cycle border_ticks_per_kib "
        "load_bytes_per_cycle load_addresses_per_cycle load_outstanding_bytes "
        "store_bytes_per_cycle store_addresses_per_cycle store_outstanding_bytes"
    ),
)
RESULT = Layout(
    "Result",
    _words(
        "cycles hbm_read_bytes hbm_written_bytes sram_read_bytes sram_written_bytes sram_hits sram_misses row_hits "
        "row_misses detail program interval_count"
    ),
)
REGION = Layout("RegionWords", _words("first end is_resident"))
INTERVAL = Layout("IntervalWords", _words("core unit start index end waited reason"))
ARRAYS = ("busy", "stalls", "counts", "op_busy", "op_stalls", "assumed")


def _enumeration(names: Mapping[str, int]) -> str:
    return "enum : Word { " + ", ".join(f"{name} = {value}" for name, value in names.items()) + " };\n"


def header() -> str:
    """`abi.h`."""
    op = OP.declaration()
    op = op.replace(f"Word written[{TILE.word_count}]", "Tile written")
    op = op.replace(f"Word reads[{READ_COUNT * TILE.word_count}]", "Tile reads[READ_COUNT]")
    constants = {
        "TICKS": TICKS,
        "GAP_COUNT": GAP_COUNT,
        "LINK_GAP_COUNT": LINK_GAP_COUNT,
        "REQUEST_BYTES": REQUEST_BYTES,
        "POSTPONED_REFRESHES": POSTPONED_REFRESHES,
        "PACKET_REQUESTS": REQUESTS_PER_PACKET,
        "READ_COUNT": READ_COUNT,
        "REASON_COUNT": len(REASONS),
        "TAKEN_BRANCH_CYCLES": TAKEN_BRANCH_CYCLES,
        "PACKET_LIMIT": max(REQUESTS_PER_PACKET, MICROCODED_LANES),
        "ARRIVAL_TICKS": microcoded_cycles.ARRIVAL_CYCLES * TICKS,
        "ANSWER_CYCLES": microcoded_cycles.ANSWER_CYCLES,
        "ATOMIC_CYCLES": microcoded_cycles.ATOMIC_CYCLES,
        "ASSUMED_INDEX_RANGE": ASSUMED_INDEX_RANGE,
    }
    return "\n".join(
        [
            "#pragma once\n#include <cstdint>\nusing Word = int64_t;",
            *(f"constexpr Word {name} = {value};" for name, value in constants.items()),
            _enumeration({name: number for number, name in enumerate(KINDS)}),
            _enumeration({f"FUNCTION_{f.name}": f.code for f in Function}),
            _enumeration({f"REASON_{r.upper().replace(' ', '_')}": n for n, r in enumerate(REASONS)}),
            _enumeration({name: number for number, name in enumerate(FAILURES)}),
            _enumeration({f"{unit.name}_ENGINE": number for number, unit in enumerate(QUEUES)}),
            f"constexpr int UNIT_NUMBER[] = {{{', '.join(str(NUMBER_OF_AGENT[unit]) for unit in AGENTS)}}};",
            TILE.declaration(),
            op,
            CHIP.declaration(),
            RESULT.declaration().replace("};", "    void *recorded;\n};"),
            INTERVAL.declaration(),
            REGION.declaration(),
            "struct Arrays {\n    Word " + ", ".join(f"*{name}" for name in ARRAYS) + ";\n};",
            "struct Trace {\n    const Word *scalars, *first_scalar, *tile_values;\n"
            "    const Word *first_tile[2], *tile_starts[2];\n};",
        ]
    )
