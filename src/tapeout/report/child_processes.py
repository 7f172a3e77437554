"""Processes that a script started by `tapeout run` starts: workers, ranks of torchrun, programs of a launcher.

They find CUDA's names standing for the chip, as the script does, and one that has used the chip says at its end how
long it took. `tapeout.pytorch.registration` calls `install` where its environment names this module.
"""

import atexit
import os
import sys

from tapeout.pytorch import cuda_names, device_runtime
from tapeout.report import run_time
from tapeout.runtime import session
from tapeout.workbench import script


def install() -> None:
    """Make this process, which has imported torch, like the one that started it."""
    cuda_names.install()

    def report_at_the_end() -> None:
        atexit.register(_report)

    device_runtime.when_used(report_at_the_end)


def _report() -> None:
    if session.clock is None:
        return
    time = script.time_so_far(timing_only=session.timing_only)
    if not time.is_empty:
        print(f"process {os.getpid()}: {run_time.plain_summary(time)}", file=sys.stderr)
