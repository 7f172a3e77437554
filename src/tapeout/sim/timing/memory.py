"""The shared memory system, plainly: a last-level SRAM in slices, behind it HBM channels with banks and open rows.

Time is in ticks, 1024 to a core cycle, so that rates need no rounding. Requests come in global time order; each slice
and each channel serves them one after the other, in the order they came. State at the start of a launch: in the SRAM
what `bring` put there, all rows closed.

A read that misses fetches its line; a later read of the same line waits for that fetch. Written data go into the SRAM
and, as far as they are whole bursts, on to HBM at once; the rest stays dirty until the line is evicted or the launch
ends. A store of a part of an absent line fetches the line, which the store does not wait for. The line to evict is the
first of its set that was not used since all others were.

For holding the model against RTL there is a memory without all that: it answers every request after a fixed time, as
the RTL's testbench does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tapeout.chip import Chip
from tapeout.sim.timing.result import MemoryCounts

TICKS = 1024
INTERLEAVE_BYTES = 512
"""Neighbouring bytes of HBM that are in one channel."""


def folded(number: int) -> int:
    """A permutation of whole numbers, so that regular strides meet all slices, channels and banks."""
    return number ^ number >> 6 ^ number >> 13 ^ number >> 21


@dataclass(frozen=True)
class MemoryParameters:
    """The chip's memory system in ticks."""

    line_bytes: int
    slice_count: int
    set_count: int
    way_count: int
    slice_bytes_per_cycle: int
    latency_ticks: int
    burst_bytes: int
    burst_ticks: int
    channel_count: int
    bank_count: int
    stripes_per_row: int
    interleave_bytes: int
    hbm_latency_ticks: int
    row_miss_ticks: int
    fixed_latency_ticks: int

    @staticmethod
    def of(chip: Chip, fixed_latency_cycles: int | None = None) -> "MemoryParameters":
        sram, hbm = chip.last_level_sram, chip.hbm
        interleave = max(sram.line_bytes, INTERLEAVE_BYTES)

        def ticks_of_ns(ns: int) -> int:
            return -(-ns * chip.clock_hz * TICKS // 1_000_000_000)

        return MemoryParameters(
            line_bytes=sram.line_bytes,
            slice_count=sram.slice_count,
            set_count=sram.size_bytes // (sram.slice_count * sram.way_count * sram.line_bytes),
            way_count=sram.way_count,
            slice_bytes_per_cycle=sram.bytes_per_cycle_per_slice,
            latency_ticks=sram.latency_cycles * TICKS,
            burst_bytes=hbm.burst_bytes,
            burst_ticks=-(-hbm.burst_bytes * chip.clock_hz * TICKS * hbm.channel_count // hbm.bandwidth_bytes_per_s),
            channel_count=hbm.channel_count,
            bank_count=hbm.bank_count_per_channel,
            stripes_per_row=max(1, hbm.row_bytes // interleave),
            interleave_bytes=interleave,
            hbm_latency_ticks=ticks_of_ns(hbm.latency_ns),
            row_miss_ticks=ticks_of_ns(hbm.row_miss_ns),
            fixed_latency_ticks=(fixed_latency_cycles or 0) * TICKS,
        )


@dataclass
class _Line:
    number: int
    ready: int
    used: bool = True
    dirty: bool = False


@dataclass
class _Bank:
    row: int = -1
    free: int = 0


@dataclass
class Memory:
    """The state, and `access`."""

    parameters: MemoryParameters
    slice_free: dict[int, int] = field(default_factory=dict)
    sets: dict[tuple[int, int], list[_Line]] = field(default_factory=dict)
    channel_free: dict[int, int] = field(default_factory=dict)
    banks: dict[tuple[int, int], _Bank] = field(default_factory=dict)
    dirty_lines: dict[int, int] = field(default_factory=dict)
    hbm_read_bytes: int = 0
    hbm_written_bytes: int = 0
    sram_read_bytes: int = 0
    sram_written_bytes: int = 0
    hits: int = 0
    misses: int = 0
    row_hits: int = 0
    row_misses: int = 0

    def access(self, time: int, address: int, size: int, *, reads: bool, writes: bool) -> int:
        """Serve a request within one line that arrives at `time`; when its data (or acknowledgement) is back."""
        p = self.parameters
        if p.fixed_latency_ticks:
            return time + p.fixed_latency_ticks
        line_number = address // p.line_bytes
        number = folded(line_number) % p.slice_count
        start = max(time, self.slice_free.get(number, 0))
        passes = int(reads) + int(writes)
        self.slice_free[number] = start + -(-passes * size * TICKS // p.slice_bytes_per_cycle)
        self.sram_read_bytes += size * reads
        self.sram_written_bytes += size * writes

        ways = self._ways(line_number)
        line = next((way for way in ways if way.number == line_number), None)
        if line is not None:
            self.hits += 1
        else:
            self.misses += 1
            line = self._allocate(ways, line_number, start)
            if reads or size < p.line_bytes:
                line.ready = self._hbm(start, line_number, p.line_bytes, writes=False)
        self._touch(ways, line)
        if writes and not reads and address % p.burst_bytes == 0 and size % p.burst_bytes == 0:
            self._hbm(start, line_number, size, writes=True)
        elif writes and not line.dirty:
            line.dirty = True
            self._count_dirty(line_number, 1)
        return (max(start, line.ready) if reads else start) + p.latency_ticks

    def bring(self, first: int, end: int) -> None:
        """Put bytes into the SRAM, clean, before anything is asked for."""
        for ways, line_number in self._lines(first, end):
            line = next((way for way in ways if way.number == line_number), None)
            self._touch(ways, line or self._allocate(ways, line_number, 0))

    def holds(self, first: int, end: int) -> bool:
        """Whether all these bytes are in the SRAM."""
        return all(any(way.number == number for way in ways) for ways, number in self._lines(first, end))

    def _lines(self, first: int, end: int) -> Iterator[tuple[list[_Line], int]]:
        p = self.parameters
        for line_number in range(first // p.line_bytes, -(-end // p.line_bytes)):
            yield self._ways(line_number), line_number

    def _ways(self, line_number: int) -> list[_Line]:
        p = self.parameters
        place = (folded(line_number) % p.slice_count, line_number // p.slice_count % p.set_count)
        return self.sets.setdefault(place, [])

    def _allocate(self, ways: list[_Line], line_number: int, time: int) -> _Line:
        fresh = _Line(line_number, time)
        if len(ways) < self.parameters.way_count:
            ways.append(fresh)
            return fresh
        victim = next((way for way in ways if not way.used), ways[0])
        if victim.dirty:
            self._hbm(time, victim.number, self.parameters.line_bytes, writes=True)
            self._count_dirty(victim.number, -1)
        ways[ways.index(victim)] = fresh
        return fresh

    def _touch(self, ways: list[_Line], line: _Line) -> None:
        line.used = True
        if len(ways) == self.parameters.way_count and all(way.used for way in ways):
            for way in ways:
                way.used = way is line

    def _channel_and_row(self, line_number: int) -> tuple[int, int]:
        p = self.parameters
        granule = line_number * p.line_bytes // p.interleave_bytes
        return folded(granule) % p.channel_count, granule // p.channel_count // p.stripes_per_row

    def _count_dirty(self, line_number: int, change: int) -> None:
        channel, _ = self._channel_and_row(line_number)
        self.dirty_lines[channel] = self.dirty_lines.get(channel, 0) + change

    def _hbm(self, time: int, line_number: int, size: int, *, writes: bool) -> int:
        """Move bytes of a line; when they are there (reads) or have been taken (writes)."""
        p = self.parameters
        channel, row = self._channel_and_row(line_number)
        bank = self.banks.setdefault((channel, folded(row) % p.bank_count), _Bank())
        ready = time
        if bank.row == row:
            self.row_hits += 1
        else:
            self.row_misses += 1
            ready = max(time, bank.free) + p.row_miss_ticks
            bank.row = row
        bursts = -(-size // p.burst_bytes)
        end = max(ready, self.channel_free.get(channel, 0)) + bursts * p.burst_ticks
        self.channel_free[channel] = bank.free = end
        if writes:
            self.hbm_written_bytes += bursts * p.burst_bytes
        else:
            self.hbm_read_bytes += bursts * p.burst_bytes
        return end + p.hbm_latency_ticks

    def finish(self, time: int) -> int:
        """When everything dirty is in HBM, if all cores were done at `time`."""
        p = self.parameters
        line_ticks = -(-p.line_bytes // p.burst_bytes) * p.burst_ticks
        last = max([time, *self.channel_free.values()])
        for channel, count in self.dirty_lines.items():
            if count:
                start = max(time, self.channel_free.get(channel, 0))
                last = max(last, start + count * line_ticks)
                self.hbm_written_bytes += count * -(-p.line_bytes // p.burst_bytes) * p.burst_bytes
        return last

    def counts(self) -> MemoryCounts:
        return MemoryCounts(
            self.hbm_read_bytes,
            self.hbm_written_bytes,
            self.sram_read_bytes,
            self.sram_written_bytes,
            self.hits,
            self.misses,
            self.row_hits,
            self.row_misses,
        )
