"""Judges cases in processes of their own: a crash or a hang ends one case.

Takes the cases and the file of outcomes; cases that the file has are not run again. Outcomes are written as they come,
so that a run can be interrupted and continued.
"""

import concurrent.futures
import importlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pebble

from tapeout.pytorch import build
from tapeout.scoreboard import verdicts
from tapeout.scoreboard.verdicts import Case, Outcome, Verdict

CASES_PER_PROCESS = 200  # a fresh process now and then: torch.compile keeps what it has compiled


def run(
    suite: str,
    cases: Sequence[Case],
    file: Path,
    *,
    sample_limit: int,
    time_limit_s: float,
    again: Collection[Verdict] = (),
    process_count: int | None = None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[Case, Outcome]:
    """Outcomes of all cases: new ones of the missing, the others from the file. `suite` names a module beside this."""
    build.library()  # building the shim would count as the first case's time
    todo = missing(cases, file, again)
    known = verdicts.read(file)
    outcomes = {case: known[case] for case in cases if case in known}
    with pebble.ProcessPool(max_workers=process_count or os.cpu_count() or 1, max_tasks=CASES_PER_PROCESS) as pool:
        running: dict[concurrent.futures.Future[Outcome], Case] = {
            pool.schedule(_judge, args=[suite, case, sample_limit], timeout=time_limit_s): case for case in todo
        }
        for future in concurrent.futures.as_completed(running):
            case = running[future]
            try:
                outcome = future.result()
            except concurrent.futures.TimeoutError:
                outcome = Outcome(case, Verdict.BROKEN, f"no end after {time_limit_s:.0f} s")
            except pebble.ProcessExpired as death:
                outcome = Outcome(case, Verdict.BROKEN, f"the process died with exit code {death.exitcode}")
            verdicts.append(file, outcome)
            outcomes[case] = outcome
            on_outcome(outcome)
    return outcomes


def missing(cases: Sequence[Case], file: Path, again: Collection[Verdict] = ()) -> list[Case]:
    """Cases that have no outcome in the file, or one of a verdict in `again`."""
    known = verdicts.read(file)
    return [case for case in cases if case not in known or known[case].verdict in again]


def _judge(suite: str, case: Case, sample_limit: int) -> Outcome:
    os.environ.setdefault("TORCH_WARM_POOL", "0")  # kernels for the chip are compiled here, not in Inductor's pool
    outcome: Outcome = importlib.import_module(f"tapeout.scoreboard.{suite}").judge(case, sample_limit)
    return outcome
