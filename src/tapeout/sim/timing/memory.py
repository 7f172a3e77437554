"""The shared memory system, plainly: a last-level SRAM in slices, behind it HBM channels with banks and open rows.

Time is in ticks, 1024 to a core cycle, so that rates need no rounding. Requests come in global time order; each slice
serves them one after the other, in the order they came. State at the start of a launch: in the SRAM what `bring` put
there, all rows closed, no write waiting.

A read that misses fetches its line; a later read of the same line waits for that fetch. Written data go into the SRAM
and, as far as they are whole bursts, on to HBM at once; the rest stays dirty until the line is evicted or the launch
ends. A store of a part of an absent line fetches the line, which the store does not wait for. The line to evict is the
first of its set that was not used since all others were.

A channel reserves its bus for a request as it comes, after all others; but one whose row is open sooner takes a gap
that is left before a request that waits for its row. Every so often each bank is refreshed, one after the other, when
it has nothing to do; it then does nothing else, and its row is closed. Writes wait until there is a batch of them, or
until they fit into a time in which the channel had nothing to do; the bus rests when it turns from reads to writes and
back.

A chip without DRAM finds all its data in the SRAM. On a chip that describes a network, a request goes over its links to
its slice and the answer comes back over others (`tapeout.sim.timing.network`).

For holding the model against RTL there is a memory without all that: it answers every request after a fixed time, as
the RTL's testbench does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tapeout.chip import Chip, Hbm, MiB
from tapeout.sim.timing.network import REQUEST_BYTES, TICKS, Network
from tapeout.sim.timing.result import MemoryCounts

INTERLEAVE_BYTES = 512
"""Neighbouring bytes of HBM that are in one channel."""

GAP_COUNT = 4
"""Gaps on its bus that a channel knows of; it forgets the earliest."""

NO_DRAM = Hbm(kind="HBM3e", stack_count=1, size_bytes=64 * MiB, bandwidth_bytes_per_s=10**9, channel_count=1)
"""Stands where a chip without DRAM has figures that nothing reads."""

POSTPONED_REFRESHES = 8
"""Refreshes that a busy bank may postpone: JEDEC's standards allow eight."""


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
    refresh_interval_ticks: int
    bank_refresh_ticks: int
    read_to_write_ticks: int
    write_to_read_ticks: int
    batch_bursts: int
    has_dram: int
    fixed_latency_ticks: int

    @staticmethod
    def of(chip: Chip, fixed_latency_cycles: int | None = None) -> "MemoryParameters":
        sram, hbm = chip.memory_side, chip.hbm or NO_DRAM
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
            refresh_interval_ticks=ticks_of_ns(hbm.refresh_interval_ns),
            bank_refresh_ticks=ticks_of_ns(hbm.bank_refresh_ns),
            read_to_write_ticks=ticks_of_ns(hbm.read_to_write_ns),
            write_to_read_ticks=ticks_of_ns(hbm.write_to_read_ns),
            batch_bursts=-(-hbm.write_batch_bytes // hbm.burst_bytes),
            has_dram=int(chip.hbm is not None),
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
    next_refresh: int
    row: int = -1
    opened: int = 0
    free: int = 0


@dataclass
class _Channel:
    """Its bus is reserved up to `free`, but for the gaps. `waiting`: lines and bursts to write; the last came at
    `written`."""

    free: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    writes: bool = False
    waiting: list[tuple[int, int]] = field(default_factory=list)
    waiting_bursts: int = 0
    written: int = 0
    dirty_lines: int = 0


@dataclass
class Memory:
    """The state, and `access`."""

    parameters: MemoryParameters
    network: Network | None = None
    slice_free: dict[int, int] = field(default_factory=dict)
    sets: dict[tuple[int, int], list[_Line]] = field(default_factory=dict)
    channels: dict[int, _Channel] = field(default_factory=dict)
    banks: dict[tuple[int, int], _Bank] = field(default_factory=dict)
    hbm_read_bytes: int = 0
    hbm_written_bytes: int = 0
    sram_read_bytes: int = 0
    sram_written_bytes: int = 0
    hits: int = 0
    misses: int = 0
    row_hits: int = 0
    row_misses: int = 0

    def access(self, time: int, address: int, size: int, *, reads: bool, writes: bool, core: int = 0) -> int:
        """Serve a request of a core within one line, made at `time`; when its data (or acknowledgement) is back."""
        p = self.parameters
        if p.fixed_latency_ticks:
            return time + p.fixed_latency_ticks
        if self.network is None:
            return self._serve(time, address, size, reads=reads, writes=writes)
        number = self.slice_of(address)
        arrival = self.network.request(time, core, number, size if writes else REQUEST_BYTES)
        done = self._serve(arrival, address, size, reads=reads, writes=writes)
        return self.network.answer(done, core, number, size if reads else 0)

    def slice_of(self, address: int) -> int:
        """The slice that serves an address."""
        return folded(address // self.parameters.line_bytes) % self.parameters.slice_count

    def _serve(self, time: int, address: int, size: int, *, reads: bool, writes: bool) -> int:
        p = self.parameters
        line_number = address // p.line_bytes
        number = folded(line_number) % p.slice_count
        start = max(time, self.slice_free.get(number, 0))
        passes = int(reads) + int(writes)
        self.slice_free[number] = start + -(-passes * size * TICKS // p.slice_bytes_per_cycle)
        self.sram_read_bytes += size * reads
        self.sram_written_bytes += size * writes

        if not p.has_dram:
            self.hits += 1
            return start + p.latency_ticks
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
        if not self.parameters.has_dram:
            return
        for ways, line_number in self._lines(first, end):
            line = next((way for way in ways if way.number == line_number), None)
            self._touch(ways, line or self._allocate(ways, line_number, 0))

    def holds(self, first: int, end: int) -> bool:
        """Return whether all these bytes are in the SRAM."""
        return not self.parameters.has_dram or all(
            any(way.number == number for way in ways) for ways, number in self._lines(first, end)
        )

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

    def _channel(self, line_number: int) -> _Channel:
        return self.channels.setdefault(self._channel_and_row(line_number)[0], _Channel())

    def _count_dirty(self, line_number: int, change: int) -> None:
        self._channel(line_number).dirty_lines += change

    def _hbm(self, time: int, line_number: int, size: int, *, writes: bool) -> int:
        """Move bytes of a line; when they are there (reads) or have been taken (writes)."""
        p = self.parameters
        channel = self._channel(line_number)
        bursts = self._bursts(size)
        turns = p.write_to_read_ticks + (0 if channel.writes else p.read_to_write_ticks)
        idle_from = max(channel.free, channel.written)
        if channel.waiting and idle_from + turns + p.row_miss_ticks + channel.waiting_bursts * p.burst_ticks <= time:
            self._write_waiting(channel, idle_from)
        if writes:
            self.hbm_written_bytes += bursts * p.burst_bytes
            channel.waiting.append((line_number, bursts))
            channel.waiting_bursts += bursts
            channel.written = max(channel.written, time)
            if channel.waiting_bursts >= p.batch_bursts:
                self._write_waiting(channel, time)
            return time
        self.hbm_read_bytes += bursts * p.burst_bytes
        self._turn(channel, writes=False)
        return self._transfer(channel, time, line_number, bursts) + p.hbm_latency_ticks

    def _bursts(self, size: int) -> int:
        return -(-size // self.parameters.burst_bytes)

    def _turn(self, channel: _Channel, *, writes: bool) -> None:
        if channel.writes != writes:
            p = self.parameters
            channel.writes = writes
            channel.free += p.read_to_write_ticks if writes else p.write_to_read_ticks
            channel.gaps.clear()

    def _write_waiting(self, channel: _Channel, time: int) -> None:
        self._turn(channel, writes=True)
        for line_number, bursts in channel.waiting:
            self._transfer(channel, time, line_number, bursts)
        channel.waiting.clear()
        channel.waiting_bursts = 0

    def _transfer(self, channel: _Channel, time: int, line_number: int, bursts: int) -> int:
        """Reserve bank and bus; when the last burst has gone over the bus."""
        p = self.parameters
        bank = self._bank(line_number)
        _, row = self._channel_and_row(line_number)
        ticks = bursts * p.burst_ticks
        if time > bank.next_refresh:
            self._refresh(bank, time)
        is_open = bank.row == row
        ready = max(time, bank.opened) if is_open else max(time, bank.free) + p.row_miss_ticks
        gap, start = self._place(channel, time, ready, ticks)
        if is_open:
            self.row_hits += 1
        else:
            self.row_misses += 1
            bank.row, bank.opened = row, ready
        end = start + ticks
        bank.free = max(bank.free, end)
        if gap is not None:
            left, right = channel.gaps[gap]
            channel.gaps[gap : gap + 1] = [(a, b) for a, b in ((left, start), (end, right)) if a < b]
        else:
            if start > channel.free:
                channel.gaps.append((channel.free, start))
            channel.free = end
        del channel.gaps[:-GAP_COUNT]
        return end

    def _refresh(self, bank: _Bank, time: int) -> None:
        """The bank's last refresh due before `time`: done when the bank had nothing to do or can put off no more."""
        p = self.parameters
        owed = (time - bank.next_refresh) // p.refresh_interval_ticks
        due = bank.next_refresh + owed * p.refresh_interval_ticks
        if bank.free < time or owed >= POSTPONED_REFRESHES:
            bank.row = -1
            bank.free = max(due, bank.free) + p.bank_refresh_ticks
            bank.next_refresh = due + p.refresh_interval_ticks

    def _place(self, channel: _Channel, time: int, ready: int, ticks: int) -> tuple[int | None, int]:
        """The gap (or none) and the time at which the bus is free for so long."""
        while channel.gaps and channel.gaps[0][1] <= time:
            del channel.gaps[0]
        for number, (left, right) in enumerate(channel.gaps):
            if max(left, ready) + ticks <= right:
                return number, max(left, ready)
        return None, max(channel.free, ready)

    def _bank(self, line_number: int) -> _Bank:
        """The one a line is in. Its first refresh: banks take turns, the last one is the first."""
        p = self.parameters
        channel, row = self._channel_and_row(line_number)
        number = folded(row) % p.bank_count
        turn = (p.bank_count - number) * p.channel_count - channel
        first_refresh = turn * p.refresh_interval_ticks // (p.bank_count * p.channel_count)
        return self.banks.setdefault((channel, number), _Bank(first_refresh))

    def finish(self, time: int) -> int:
        """Return the time at which all dirty lines are in HBM, if all cores were done at `time`."""
        p = self.parameters
        line_bursts = self._bursts(p.line_bytes)
        last = time
        for channel in self.channels.values():
            if channel.waiting:
                self._write_waiting(channel, channel.written)
            if channel.dirty_lines:
                self._turn(channel, writes=True)
                channel.free = max(time, channel.free) + channel.dirty_lines * line_bursts * p.burst_ticks
                self.hbm_written_bytes += channel.dirty_lines * line_bursts * p.burst_bytes
            last = max(last, channel.free)
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
