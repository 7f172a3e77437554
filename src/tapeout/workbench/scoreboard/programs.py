"""Runs a program of somebody else in a process of its own, within a limit of processor time."""

import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def execute(
    arguments: Sequence[str], folder: Path, limit_s: float, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in a folder, with environment variables beside this process's own."""
    limit = math.ceil(limit_s)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
    )


def processor_s() -> float:
    """Processor time of the programs that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def last_line(run: subprocess.CompletedProcess[str]) -> str:
    """The last words of a failed run: an exception's own line before anything that was logged after it."""
    if run.returncode < 0:
        return f"ended by signal {-run.returncode}"
    lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Unsupported)\b", line)]
    return (raised or lines or [f"exit status {run.returncode}"])[-1][:300]
