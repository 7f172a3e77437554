"""Runs a Python program on a chip in virtual time, and says how long the chip took.

The program is a file, a module or a command like pytest. It runs in this process as `python script.py arguments`,
`python -m module arguments` or the shell would run it, with the chip active, the clock on and `torch.cuda` standing for
the chip. Processes that it starts find the same. For several chips it runs once in a process for each.
"""

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tapeout import chip as chips
from tapeout.errors import TapeoutError
from tapeout.runtime import clock, session
from tapeout.workbench.timeline import Timeline, timeline


@dataclass(frozen=True)
class RunTime:
    """Time of a script on a chip. `total_ps` leaves out `host_operators` and `untimed_kernels`: nobody knows theirs.

    `busy_ps` and `counts` by kind of work (`tapeout.runtime.clock.Kind`). `assumptions`: what the times of some
    launches rest on for want of data, with the number of launches. `status`: the script's exit status.
    """

    chip: str
    total_ps: int
    busy_ps: Mapping[str, int]
    counts: Mapping[str, int]
    host_operators: Mapping[str, int]
    untimed_kernels: Mapping[str, int]
    assumptions: Mapping[str, int]
    timing_only: bool
    status: int
    communication: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Fields of `tapeout.runtime.world.Communication` on this rank, by operation of torch.distributed."""
    of_chips: Sequence[Mapping[str, Any]] = ()
    """Of a process with several chips, each one's `chip`, `busy_ps` and `counts`; above they are summed."""

    @property
    def is_empty(self) -> bool:
        """True if nothing ran on the chip."""
        return not (self.counts or self.host_operators or self.untimed_kernels)

    @property
    def is_whole(self) -> bool:
        """True if `total_ps` is the time of everything."""
        return not self.host_operators and not self.untimed_kernels

    def items_per_s(self, item_count: float, chip_name: str) -> float:
        """Throughput of a run that made `item_count` items. Raises TapeoutError for a run on another chip, and for one
        whose time is not whole, as its rate would be too high."""
        if self.chip != chip_name:
            raise TapeoutError(f"the run was on the chip {self.chip}, not {chip_name}")
        if not self.is_whole:
            left_out = ", ".join([*self.host_operators, *self.untimed_kernels])
            raise TapeoutError(f"the run's time leaves out {left_out}, so it has no throughput")
        if not (item_count > 0 and self.total_ps > 0):
            raise TapeoutError(f"{item_count:g} items in {self.total_ps / 1e12:g} s are no throughput")
        return item_count / (self.total_ps / 1e12)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> "RunTime":
        """Raises TapeoutError for a text that to_json has not written."""
        try:
            return RunTime(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise TapeoutError(f"this is not what `tapeout run --result` writes for one chip: {error}") from None


@dataclass(frozen=True)
class Script:
    """A program and how to run it. `name`: a file, a command in PATH that is written in Python, or a module if
    `is_module`. `read_zeros`: in timing alone, reading a value gives zero instead of an error."""

    name: str
    arguments: Sequence[str] = ()
    timing_only: bool = False
    read_zeros: bool = False
    is_module: bool = False

    def __post_init__(self) -> None:
        if self.read_zeros and not self.timing_only:
            raise TapeoutError("--read-zeros is for --timing-only: otherwise there are values to read")
        if not self.is_module:
            _ = self.path

    @property
    def path(self) -> Path:
        """Return the path of the program, if it is no module. Raises TapeoutError if it is nowhere."""
        path = Path(self.name)
        if path.is_file():
            return path
        folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        command = None if path.is_dir() or "/" in self.name else shutil.which(self.name, path=folders)
        if command is None:
            raise TapeoutError(f"there is no script {self.name!r} in {os.getcwd()}")
        with open(command, "rb") as file:
            first_line = file.readline(200)
        if not (first_line.startswith(b"#!") and b"python" in first_line):
            raise TapeoutError(f"the command {command} is not a Python program, and only those run on the chip")
        return Path(command)


@dataclass(frozen=True)
class Recording:
    """A run with everything the chip did in it."""

    time: RunTime
    activities: Sequence[clock.Activity]


def run(script: Script, chip: chips.Chip | str) -> RunTime:
    """Run the script in this process, which must not have used the chip yet. An exception of the script is raised."""
    _prepare(script, chip)
    return _taken(script, _execute(script))


def run_with_timelines(script: Script, chip: chips.Chip | str) -> tuple[RunTime, list[Timeline]]:
    """The same, and what each chip of the process did."""
    _prepare(script, chip)
    for each in session.clocks:
        each.record = True
    time = _taken(script, _execute(script))
    rank = os.environ.get("RANK")
    labels = [f"chip:{index} {own.name}" if rank is None else f"rank {rank} {own.name}"
              for index, own in enumerate(chips.of_process())]  # fmt: skip
    return time, [timeline(label, each.activities) for label, each in zip(labels, session.clocks, strict=True)]


def record(
    script: Script,
    chip: chips.Chip | str,
    watch: Callable[[clock.VirtualClock], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Recording:
    """The same, keeping all that the chip did. The script runs within what `watch` makes of the clock. Raises
    TapeoutError in a process with several chips."""
    now = _prepare(script, chip)
    if len(session.clocks) > 1:
        raise TapeoutError(
            f"profiles and folders of runs are of one chip, and this process has {len(session.clocks)}: unset "
            f"{chips.CHIPS_VARIABLE}, or see what all of them did with `tapeout run --trace FILE`"
        )
    from tapeout.pytorch import device_runtime

    now.record = True
    device_runtime.name_operators()
    with watch(now):
        time = _taken(script, _execute(script))
    return Recording(time, tuple(now.activities))


def make_ready(chip: chips.Chip | str, *, timing_only: bool) -> clock.VirtualClock:
    """Make this process, which must not have used the chip yet, run on it in virtual time."""
    return _prepare(Script("", (), timing_only, timing_only, is_module=True), chip)


def _prepare(script: Script, chip: chips.Chip | str) -> clock.VirtualClock:
    """Make this process, and those it starts, run on the chip in virtual time."""
    import_torch()
    from tapeout.pytorch import cuda_names, device_runtime, registration

    cuda_names.install()
    active = chips.activate(chip)
    os.environ[chips.CHIP_VARIABLE] = chip if isinstance(chip, str) else active.name
    os.environ[device_runtime.TIMING_VARIABLE] = "only" if script.timing_only else "on"
    os.environ[device_runtime.READ_VARIABLE] = "zeros" if script.read_zeros else "error"
    os.environ[registration.STARTUP_VARIABLE] = "tapeout.report.child_processes"
    return session.turn_on(only=script.timing_only)


def import_torch() -> None:
    """Import torch without garbage collection. The objects that the import makes stay as long as the process; looking
    through them for garbage takes a fifth of the import, and later a part of every compilation."""
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        importlib.import_module("torch")
    finally:
        gc.freeze()
        gc.enable()


def _execute(script: Script) -> int:
    """Run the program as Python would, as `__main__` with its own arguments. Returns its exit status."""
    before_argv, before_path = sys.argv, sys.path
    sys.argv = [script.name if script.is_module else str(script.path), *script.arguments]
    folder = os.getcwd() if script.is_module else str(script.path.resolve().parent)
    sys.path = [folder, *sys.path[1:]]
    try:
        if script.is_module:
            _check_module(script.name)
            runpy.run_module(script.name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(script.path), run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return int(end.code or 0)
        print(end.code, file=sys.stderr)
        return 1
    finally:
        sys.argv, sys.path = before_argv, before_path
    return 0


def _check_module(name: str) -> None:
    """Raises TapeoutError if there is no such module, or a package that is not to be run."""
    try:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations is not None:
            found = importlib.util.find_spec(f"{name}.__main__")
            if found is None:
                raise TapeoutError(f"the package {name!r} has no module __main__, so it cannot be run with -m")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a fault of the package itself
        found = None
    if found is None:
        raise TapeoutError(f"there is no module {name!r}")


def own_traceback(error: BaseException) -> types.TracebackType | None:
    """The part of an error's traceback that is the script's: what Python would show for it. None if the error did not
    come out of a script."""
    own, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename in _LAUNCHERS:
            own = frame.tb_next
        frame = frame.tb_next
    return own


_LAUNCHERS = {runpy.__file__, "<frozen runpy>"}


def _taken(script: Script, status: int) -> RunTime:
    return time_so_far(script.timing_only, status)


def time_so_far(timing_only: bool, status: int = 0) -> RunTime:
    """The time of this process, which keeps time."""
    own = chips.of_process()
    found = [each.elapsed for each in session.clocks]

    def summed(name: str) -> dict[Any, int]:
        return dict(sum((Counter(getattr(elapsed, name)) for elapsed in found), Counter()))

    def by_name(of_kinds: Mapping[clock.Kind, int]) -> dict[str, int]:
        return {kind.value: amount for kind, amount in of_kinds.items()}

    return RunTime(
        chip=names_of(own),
        total_ps=max(elapsed.total_ps for elapsed in found),
        busy_ps=by_name(summed("busy_ps")),
        counts=by_name(summed("counts")),
        host_operators=summed("host_operators"),
        untimed_kernels=summed("untimed_kernels"),
        assumptions=summed("assumptions"),
        timing_only=timing_only,
        status=status,
        communication=_communication(),
        of_chips=[
            {"chip": chip.name, "busy_ps": by_name(elapsed.busy_ps), "counts": by_name(elapsed.counts)}
            for chip, elapsed in zip(own, found, strict=True)
            if len(own) > 1
        ],
    )


def names_of(own: Sequence[chips.Chip]) -> str:
    """The names of a process's chips: "training", or "2 x training, inference"."""
    counted = Counter(chip.name for chip in own)
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())


def _communication() -> dict[str, dict[str, int]]:
    groups = sys.modules.get("tapeout.pytorch.distributed.groups")  # not there unless the script used it
    world = groups.world_if_any() if groups else None
    return {name: asdict(of_kind) for name, of_kind in world.communication().items()} if world else {}


def run_on_each(script: Script, chip_names: Sequence[str]) -> list[RunTime]:
    """Run the script once for each chip, one process after another; what they print comes as they print it.

    Raises TapeoutError if one of them fails.
    """
    for name in chip_names:
        chips.load(name)  # a wrong name is found before the first run
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(chip_names):
            result = Path(folder) / f"{number}.json"
            options: list[Any] = ["--chip", name, "--result", result]
            options += ["--timing-only"] * script.timing_only + ["--read-zeros"] * script.read_zeros
            options += ["-m"] * script.is_module
            command = [sys.executable, "-m", "tapeout", "run", *options, "--", script.name, *script.arguments]
            status = subprocess.run(list(map(str, command))).returncode
            if status or not result.exists():
                raise TapeoutError(f"{script.name} failed on chip {name!r} with status {status}")
            results.append(RunTime.from_json(result.read_text("utf-8")))
    return results
