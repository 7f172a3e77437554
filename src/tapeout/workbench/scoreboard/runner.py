"""Judges cases in processes of their own: a crash or a hang ends one case.

A process judges many cases, one after the other, so that it starts seldom. Processes are forked from this one, which
has imported what they need, and share the caches of kernels on disk.

Takes the cases and the file of outcomes; cases that the file has are not run again. Outcomes are written as they come,
so that a run can be interrupted and continued; at its end it writes how long it took.
"""

import concurrent.futures
import datetime
import gc
import importlib
import math
import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pebble
import torch

from tapeout.pytorch import build
from tapeout.workbench.scoreboard import verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Run, Verdict

# A case that does nothing, or that waits, ends after so many times its limit of processor time.
PATIENCE = 10
CASES_PER_PROCESS = 200  # a fresh process now and then: torch.compile keeps what it has compiled

COLLECTED_AFTER = (50_000, 20, 100)  # Python's garbage collector: its three thresholds


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
    """Outcomes of all cases: new ones of the missing, the others from the file. `suite` names a module beside this.

    `time_limit_s` is processor time, so that a busy machine breaks no case.
    """
    build.load()  # building the shim would count as the first case's time
    _import_once_for_all()
    began_s, todo = time.monotonic(), missing(cases, file, again)
    known = verdicts.read(file)
    outcomes = {case: known[case] for case in cases if case in known}
    core_count = os.cpu_count() or 1
    workers = process_count or core_count
    with pebble.ProcessPool(
        max_workers=workers,
        max_tasks=CASES_PER_PROCESS,
        initializer=_wake_the_chip,
        initargs=[max(1, core_count // workers)],
    ) as pool:
        running: dict[concurrent.futures.Future[Outcome], Case] = {
            pool.schedule(
                _judge_in_time, args=[suite, case, sample_limit, time_limit_s], timeout=PATIENCE * time_limit_s
            ): case
            for case in todo
        }
        for future in concurrent.futures.as_completed(running):
            case = running[future]
            try:
                outcome = future.result()
            except concurrent.futures.TimeoutError:
                outcome = Outcome(case, Verdict.BROKEN, f"no end after {PATIENCE * time_limit_s:.0f} s")
            except pebble.ProcessExpired as death:
                cause = f"the process died with exit code {death.exitcode}"
                if death.exitcode == -signal.SIGXCPU:
                    cause = f"no end after {time_limit_s:.0f} s of processor time"
                outcome = Outcome(case, Verdict.BROKEN, cause)
            verdicts.append(file, outcome)
            outcomes[case] = outcome
            on_outcome(outcome)
    took_s = round(time.monotonic() - began_s)
    verdicts.append(file, Run(len(todo), took_s, workers, core_count, datetime.date.today().isoformat()))
    return outcomes


def missing(cases: Sequence[Case], file: Path, again: Collection[Verdict] = ()) -> list[Case]:
    """Cases that have no outcome in the file, or one of a verdict in `again`."""
    known = verdicts.read(file)
    return [case for case in cases if case not in known or known[case].verdict in again]


def _import_once_for_all() -> None:
    """Prepare the parts that take seconds to import or compute and that every process needs. The chip itself wakes in
    each process.

    What is imported is no garbage, and compiling makes little of it: looking for it took a sixth of the time.
    """
    os.environ.setdefault("TORCH_WARM_POOL", "0")  # kernels for the chip are compiled here, not in Inductor's pool
    for module in ("torch._inductor.compile_fx", "triton.compiler"):
        importlib.import_module(module)
    importlib.import_module("triton.runtime.cache").triton_key()
    importlib.import_module("torch._inductor.codecache").torch_key()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def _wake_the_chip(thread_count: int) -> None:
    """Prepare what every process needs before its first case, which would otherwise pay for it.

    Processes share the cores out: threads of one would wait for those of another.
    """
    os.environ.setdefault("TAPEOUT_THREADS", str(thread_count))
    torch.set_num_threads(thread_count)
    patterns = importlib.import_module("torch._inductor.fx_passes.joint_graph")
    patterns.lazy_init(torch.empty(0, device="chip").device)


def _judge_in_time(suite: str, case: Case, sample_limit: int, time_limit_s: float) -> Outcome:
    """The operating system ends the process (SIGXCPU) when its processor time is up."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + time_limit_s), hard))
    return _judge(suite, case, sample_limit)


def _judge(suite: str, case: Case, sample_limit: int) -> Outcome:
    started_s = time.process_time()
    outcome: Outcome = importlib.import_module(f"tapeout.workbench.scoreboard.{suite}").judge(case, sample_limit)
    return replace(outcome, processor_s=round(time.process_time() - started_s, 2))
