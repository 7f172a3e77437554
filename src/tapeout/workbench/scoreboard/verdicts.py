"""The outcome of one case, and the file that keeps outcomes from one run to the next."""

import enum
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tapeout.errors import TapeoutError

DTYPES = ("float32", "float64", "bfloat16", "float16", "int64", "int32", "bool")
"""Element types that cases have, those that matter most first."""


class Verdict(enum.StrEnum):
    """Outcome of a case. Only the last two are faults: a wrong number, or an end nobody meant."""

    NATIVE = "native"
    """Right, and everything ran on the chip."""
    FALLBACK = "fallback"
    """Right, with the help of operators on the host."""
    REFUSED = "refused"
    """A clear error says that the chip does not do this."""
    SKIPPED = "skipped"
    """The case does not run on the CPU either."""
    WRONG = "wrong"
    """A result differs from the CPU's beyond the tolerance."""
    BROKEN = "broken"
    """An error that does not explain itself, a crash, or no end in time."""


FAULTS = (Verdict.WRONG, Verdict.BROKEN)
SEVERITY = (Verdict.SKIPPED, Verdict.NATIVE, Verdict.FALLBACK, Verdict.REFUSED, Verdict.BROKEN, Verdict.WRONG)


@dataclass(frozen=True, order=True)
class Case:
    """One thing to judge: `name` in the suite's words, element type, and how it runs."""

    name: str
    dtype: str
    mode: str  # "eager", "compiled" or, of operators, one of those that operators.py adds

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.mode}"


@dataclass(frozen=True)
class Outcome:
    """The verdict on a case. `cause`: what was refused, wrong or run on the host; empty for native.

    `processor_s`: what judging took, the CPU's own run with it; 0 where the process did not live to say it.
    """

    case: Case
    verdict: Verdict
    cause: str = ""
    sample_count: int = 0
    processor_s: float = 0.0


@dataclass(frozen=True)
class Run:
    """One call of the command that came to its end: what it judged, and how long that took by the clock."""

    case_count: int
    wall_s: float
    process_count: int
    core_count: int
    date: str


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome that decides when a case consists of several."""
    return max(outcomes, key=lambda outcome: SEVERITY.index(outcome.verdict))


def is_clear(error: BaseException) -> bool:
    """Return whether an error, or what caused it, was raised on purpose to say that this is not supported."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, NotImplementedError | TapeoutError):
            return True
        seen = seen.__cause__ or seen.__context__
    return "not supported" in str(error) or "not implemented" in str(error)


def first_line(error: BaseException) -> str:
    """Type and first line of the message (the second, too, where the first announces it), at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    told = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {told}"[:300]


def of_error(case: Case, error: BaseException) -> Outcome:
    """The outcome of a case that the chip ended with an error."""
    return Outcome(case, Verdict.REFUSED if is_clear(error) else Verdict.BROKEN, first_line(error), 1)


def of_right_result(case: Case, on_host: Iterable[str]) -> Outcome:
    """The outcome of a case with the right results; `on_host`: the operators that the host ran."""
    names = ", ".join(sorted(on_host))
    return Outcome(case, Verdict.FALLBACK if names else Verdict.NATIVE, names, 1)


def append(file: Path, item: Outcome | Run) -> None:
    """One line more. A line is written whole or, by a run killed half-way, ignored when the file is read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps({"run": asdict(item)} if isinstance(item, Run) else asdict(item)) + "\n")


def read(file: Path) -> dict[Case, Outcome]:
    """The latest outcome of each case; none if there is no file yet."""
    found: dict[Case, Outcome] = {}
    for row in _rows(file):
        if "case" in row:
            case = Case(**row.pop("case"))
            found[case] = Outcome(case, Verdict(row.pop("verdict")), **row)
    return found


def read_runs(file: Path) -> list[Run]:
    """The runs that wrote the file, in their order."""
    return [Run(**row["run"]) for row in _rows(file) if "run" in row]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the line a killed run was writing
            continue
