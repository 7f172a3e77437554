"""Schedules of a pipeline: the order in which each device works, and the exact time of every pass.

Takes how many stages, chunks and micro-batches there are and what a pass of each chunk takes; gives start and end of
every pass. Chunk c holds the c-th part of the layers; with virtual stages device d holds chunks d, d + S, ...
DualPipe sends half of the micro-batches from either end, so its device d holds chunks d and S - 1 - d.

Orders: 1F1B and its interleaved form (Narayanan et al. 2021), ZB-H1 and interleaved zero bubble (Qi et al. 2024; W is
deferred by as many passes as the device's place), DualPipe (DeepSeek-V3 technical report; its eight steps).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tapeout.errors import InternalError

FORWARD, BACKWARD, WEIGHT, WHOLE_BACKWARD = range(4)
"""Passes: forward, backward to the input, gradient of the weights, and the last two in one."""
NAMES = ("F", "B", "W", "B+W")


@dataclass(frozen=True)
class Order:
    """What each device does, in order: rows of (pass, chunk, micro-batch), device after device. `starts`: the first row
    of each device, and the number of rows."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    chunk_count: int
    micro_batches: int

    @property
    def devices(self) -> NDArray[np.int64]:
        """The device of each row."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True)
class Timeline:
    """An order with times, in seconds from the start of the step."""

    order: Order
    start: NDArray[np.float64]
    end: NDArray[np.float64]

    @property
    def makespan(self) -> float:
        return float(self.end.max())


@cache
def order(schedule: str, stages: int, micro_batches: int, virtual_stages: int = 1) -> Order:
    """The order of a schedule. What it cannot do is refused in `Plan.check`."""
    makers = {
        "gpipe": _gpipe,
        "1f1b": _one_forward_one_backward,
        "interleaved": _interleaved,
        "zero-bubble": _zero_bubble,
        "dualpipe": _dualpipe,
    }
    if schedule not in makers:
        raise InternalError(f"no schedule {schedule!r}")
    if schedule == "dualpipe" and stages == 1:
        schedule = "1f1b"
    rows = [makers[schedule](stages, micro_batches, virtual_stages, device) for device in range(stages)]
    starts = np.cumsum([0, *(len(each) for each in rows)])
    return Order(
        np.array([row for each in rows for row in each], np.int64).reshape(-1, 3),
        starts.astype(np.int64),
        stages * virtual_stages,
        micro_batches,
    )


Rows = list[tuple[int, int, int]]


def _gpipe(stages: int, micro_batches: int, virtual: int, device: int) -> Rows:
    forward = [(FORWARD, device, m) for m in range(micro_batches)]
    return forward + [(WHOLE_BACKWARD, device, m) for m in range(micro_batches)]


def _one_forward_one_backward(stages: int, micro_batches: int, virtual: int, device: int) -> Rows:
    ahead = min(stages - device - 1, micro_batches)
    rows = [(FORWARD, device, m) for m in range(ahead)]
    for m in range(micro_batches):
        if ahead + m < micro_batches:
            rows.append((FORWARD, device, ahead + m))
        rows.append((WHOLE_BACKWARD, device, m))
    return rows


def _passes(stages: int, micro_batches: int, virtual: int, device: int) -> tuple[list[tuple[int, int]], ...]:
    """Forward and backward passes of a device as (chunk, micro-batch), in their order."""
    forward, backward = [], []
    for k in range(micro_batches * virtual):
        group, inside = divmod(k, stages * virtual)
        micro = group * stages + inside % stages
        forward.append((device + stages * (inside // stages), micro))
        backward.append((device + stages * (virtual - 1 - inside // stages), micro))
    return forward, backward


def _interleaved(stages: int, micro_batches: int, virtual: int, device: int) -> Rows:
    if virtual == 1:
        return _one_forward_one_backward(stages, micro_batches, 1, device)
    forward, backward = _passes(stages, micro_batches, virtual, device)
    ahead = min((stages - device - 1) * 2 + (virtual - 1) * stages, len(forward))
    rows = [(FORWARD, *each) for each in forward[:ahead]]
    for number, each in enumerate(backward):
        if ahead + number < len(forward):
            rows.append((FORWARD, *forward[ahead + number]))
        rows.append((WHOLE_BACKWARD, *each))
    return rows


def _zero_bubble(stages: int, micro_batches: int, virtual: int, device: int) -> Rows:
    forward, backward = _passes(stages, micro_batches, virtual, device)
    ahead = (stages - device - 1) * (2 if virtual > 1 else 1) + (virtual - 1) * stages
    ahead = min(ahead, len(forward))
    rows = [(FORWARD, *each) for each in forward[:ahead]]
    done = 0
    for number, each in enumerate(backward):
        if ahead + number < len(forward):
            rows.append((FORWARD, *forward[ahead + number]))
        rows.append((BACKWARD, *each))
        if number >= device:
            rows.append((WEIGHT, *backward[done]))
            done += 1
    return rows + [(WEIGHT, *each) for each in backward[done:]]


def _dualpipe(stages: int, micro_batches: int, virtual: int, device: int) -> Rows:
    half_stages, half = stages // 2, micro_batches // 2
    place = min(device, stages - 1 - device)
    is_second = device >= half_stages
    counts = {(FORWARD, 0): 0, (FORWARD, 1): 0, (BACKWARD, 0): 0, (BACKWARD, 1): 0}
    waiting: list[tuple[int, int]] = []
    rows: Rows = []

    def chunk_and_micro(kind: int, phase: int) -> tuple[int, int]:
        # Phase 0 comes from the near end. Micro-batches of the far direction follow those of the first.
        number = counts[kind, phase]
        counts[kind, phase] += 1
        is_reversed = phase ^ is_second
        return (stages - 1 - device, half + number) if is_reversed else (device, number)

    def forward(phase: int) -> None:
        rows.append((FORWARD, *chunk_and_micro(FORWARD, phase)))

    def backward(phase: int, *, split: bool = False) -> None:
        which = chunk_and_micro(BACKWARD, phase)
        rows.append((BACKWARD if split else WHOLE_BACKWARD, *which))
        if split:
            waiting.append(which)

    def weight() -> None:
        rows.append((WEIGHT, *waiting.pop(0)))

    inner = half_stages - place - 1
    for _ in range(2 * inner):
        forward(0)
    for _ in range(place + 1):
        forward(0)
        forward(1)
    for _ in range(inner):
        backward(1, split=True)
        weight()
        forward(1)
    for _ in range(half - stages + place + 1):
        forward(0)
        backward(1)
        forward(1)
        backward(0)
    for _ in range(inner):
        backward(1)
        forward(1)
        backward(0)
    is_split = False
    for number in range(place + 1):
        is_split |= number == (place + 1) // 2 and place % 2 == 1
        backward(1, split=is_split)
        is_split |= number == (place + 1) // 2 and place % 2 == 0
        backward(0, split=is_split)
    for _ in range(inner):
        weight()
        backward(0, split=True)
    while waiting:
        weight()
    return rows


def times(
    of: Order,
    forward: Sequence[float],
    backward: Sequence[float],
    weight: Sequence[float],
    transfer: Sequence[float],
) -> Timeline:
    """When every pass begins and ends. Seconds of a pass by chunk; `transfer[c]`: from chunk c to c + 1 or back.

    A pass begins when its device is free and what it needs has arrived: a forward pass the output of the chunk before,
    a backward pass the gradient of the chunk after.
    """
    durations = np.array([forward, backward, weight, np.add(backward, weight)], np.float64)
    rows, chunks, count = of.rows, of.chunk_count, of.micro_batches
    start, end = np.empty(len(rows)), np.empty(len(rows))
    kinds, places, micros = (rows[:, column].tolist() for column in range(3))
    lengths = durations[rows[:, 0], rows[:, 1]].tolist()
    hops = list(transfer)
    # The end of a forward or backward pass of (chunk, micro-batch), None until it is known.
    ends: list[list[float | None]] = [[None] * (chunks * count) for _ in range(2)]
    starts = of.starts.tolist()
    pointers, free = starts[:-1], [0.0] * (len(starts) - 1)
    left = len(rows)
    while left:
        before = left
        for device, limit in enumerate(starts[1:]):
            row, now = pointers[device], free[device]
            while row < limit:
                kind, chunk, micro = kinds[row], places[row], micros[row]
                ready: float | None = 0.0
                if kind == FORWARD and chunk:
                    ready = ends[0][(chunk - 1) * count + micro]
                    hop = hops[chunk - 1]
                elif kind in (BACKWARD, WHOLE_BACKWARD) and chunk < chunks - 1:
                    ready = ends[1][(chunk + 1) * count + micro]
                    hop = hops[chunk]
                else:
                    hop = 0.0
                if ready is None:
                    break
                begin = max(now, ready + hop)
                now = begin + lengths[row]
                start[row], end[row] = begin, now
                if kind != WEIGHT:
                    ends[kind != FORWARD][chunk * count + micro] = now
                row += 1
                left -= 1
            pointers[device], free[device] = row, now
        if left == before:
            raise InternalError("a schedule waits for itself")
    return Timeline(of, start, end)


def most_in_flight(of: Order) -> NDArray[np.int64]:
    """The most micro-batches whose activations each device holds at once, counted over its chunks."""
    found = []
    for device, first in enumerate(of.starts[:-1]):
        kinds = of.rows[first : of.starts[device + 1], 0]
        change = np.where(kinds == FORWARD, 1, np.where((kinds == WEIGHT) | (kinds == WHOLE_BACKWARD), -1, 0))
        found.append(int(np.cumsum(change).max(initial=0)))
    return np.array(found, np.int64)
