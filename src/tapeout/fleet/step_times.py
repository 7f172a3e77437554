"""Seconds of many steps on a kind of chip at once: rows of one operator are evaluated together.

Takes lists of operations, gives `Rows`, which give one time a list on any chip. A thousand steps cost little more than
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.models.step import Operation
from tapeout.models.tables import Table
from tapeout.models.timers import Timer


@dataclass(frozen=True)
class _Group:
    """Operations of one kind and type: their distinct rows, and for each operation its row, step and count."""

    table: Table
    row: NDArray[np.int64]
    step: NDArray[np.int64]
    count: NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    step_count: int
    groups: tuple[_Group, ...]

    def seconds(self, timer: Timer) -> NDArray[np.float64]:
        """Time of each list of operations, one after another. Raises ModelError that names a figure the chip lacks."""
        found = np.zeros(self.step_count)
        for group in self.groups:
            np.add.at(found, group.step, timer.time(group.table).seconds[group.row] * group.count)
        return found


def rows_of(steps: Sequence[Sequence[Operation]]) -> Rows:
    groups: dict[tuple[str, str], list[tuple[int, Operation]]] = {}
    for place, operations in enumerate(steps):
        for each in operations:
            groups.setdefault((each.table.kind.name, each.table.dtype), []).append((place, each))
    return Rows(len(steps), tuple(_group(found) for found in groups.values()))


def _group(found: Sequence[tuple[int, Operation]]) -> _Group:
    first = found[0][1].table
    values = np.array([[float(column[0]) for column in each.table.columns.values()] for _, each in found])
    words = np.array([[str(word[0]) for word in each.table.words.values()] for _, each in found])
    marks = [f"{numbers.tobytes().hex()} {' '.join(text)}" for numbers, text in zip(values, words, strict=True)]
    _, kept, row = np.unique(np.array(marks), return_index=True, return_inverse=True)
    table = Table(
        first.kind,
        first.dtype,
        {name: values[kept, number] for number, name in enumerate(first.columns)},
        {name: words[kept, number] for number, name in enumerate(first.words)},
    )
    return _Group(
        table, row, np.array([place for place, _ in found]), np.array([each.count for _, each in found], np.float64)
    )
