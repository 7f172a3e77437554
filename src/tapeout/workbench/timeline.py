"""What chips did and when, without the kernels' insides: small enough for a rank to hand on.

A `Timeline` is one chip's, in the order of its stream of events. Several, of ranks or of the chips of one process, have
the same virtual time.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tapeout.runtime.clock import Activity


@dataclass(frozen=True)
class Entry:
    """One piece of work. `kind`: value of `tapeout.runtime.clock.Kind`. A collective was ready at `submitted_ps` and
    began when the last rank was."""

    kind: str
    name: str
    stream: int
    submitted_ps: int
    start_ps: int
    end_ps: int
    size_bytes: int


@dataclass(frozen=True)
class Timeline:
    """`label`: whose it is, such as "rank 3, training"."""

    label: str
    entries: Sequence[Entry]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Timeline":
        read = json.loads(text)
        return Timeline(read["label"], [Entry(**entry) for entry in read["entries"]])


def timeline(label: str, activities: Sequence[Activity]) -> Timeline:
    """The activities that a clock recorded."""
    return Timeline(
        label,
        [
            Entry(
                each.kind.value,
                each.name,
                each.stream,
                each.submitted_ps,
                each.start_ps,
                each.end_ps,
                each.size_bytes,
            )
            for each in activities
        ],
    )
