"""A folder of runs and chips, read as data: nothing in it is run, no link is followed, nothing outside is opened.

A run is a folder with `run.json` or `profile.json` (`tapeout run -o`, `tapeout profile -o`). A chip is a .toml file, or
a .json file with the fields of one. What cannot be read is listed with the reason.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.chip.loading import from_plain, read_data
from tapeout.errors import ChipError, TapeoutError
from tapeout.report.run_folder import KERNELS, KERNELS_SCHEMA, PROFILE, RUN, SCHEMA, Kernels, RunSummary
from tapeout.workbench.plain_data import DataError, read, read_json
from tapeout.workbench.profiling import FORMAT, Profile

DEEPEST = 4
MOST_ENTRIES = 20_000
SMALL_BYTES = 1 << 20
"""Of a chip file, at most. `run.json` is as small."""
SAMPLE = "sample"
CHIP_KEYS = {"based_on", "core", "core_count", "clock_hz"}


@dataclass(frozen=True)
class Run:
    """A folder with a run in it. `summary` is None for a profile without one."""

    key: str
    folder: Path
    modified: float
    summary: RunSummary | None

    @property
    def chip_name(self) -> str:
        return self.summary.chip_name if self.summary else ""

    def has(self, name: str) -> bool:
        return _is_plain_file(self.folder / name)


@dataclass(frozen=True)
class Fault:
    """A file that was skipped, and why."""

    key: str
    reason: str


@dataclass
class Library:
    """What a folder holds. `scan` reads again what has changed since."""

    root: Path
    runs: dict[str, Run] = field(default_factory=dict)
    chips: dict[str, Chip] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _known: dict[Path, tuple[tuple[int, int], Any]] = field(default_factory=dict)

    def scan(self) -> None:
        """Look through the folder. If there is no run in it, the sample runs stand in."""
        runs: dict[str, Run] = {}
        self.chips, self.faults = {}, []
        self._count = 0
        for folder, names in self._folders(self.root, 0):
            self._take(folder, names, "", self.root, runs)
        if not runs:
            with resources.as_file(resources.files("tapeout.studio") / SAMPLE) as samples:
                for folder, names in self._folders(samples, 0):
                    self._take(folder, names, f"{SAMPLE}/", samples, runs)
        self.runs = dict(sorted(runs.items(), key=lambda item: (-item[1].modified, item[0])))

    def _folders(self, folder: Path, depth: int) -> Iterator[tuple[Path, set[str]]]:
        names, below = set(), []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._count += 1
                    if self._count > MOST_ENTRIES:
                        self.faults.append(Fault(self._key(folder), f"only {MOST_ENTRIES:,} entries are looked at"))
                        return
                    if entry.is_symlink() or entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        names.add(entry.name)
        except OSError as error:
            self.faults.append(Fault(self._key(folder), f"cannot be read: {error.strerror}"))
            return
        yield folder, names
        if depth < DEEPEST:
            for name in sorted(below):
                if self._count > MOST_ENTRIES:
                    return
                yield from self._folders(folder / name, depth + 1)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def _take(self, folder: Path, names: set[str], before: str, root: Path, runs: dict[str, Run]) -> None:
        here = f"{before}{folder.relative_to(root).as_posix()}"
        if RUN in names or PROFILE in names:
            try:
                summary = self._read_once(folder / RUN, _summary) if RUN in names else None
                modified = (folder / (RUN if RUN in names else PROFILE)).stat().st_mtime
                runs[here] = Run(here, folder, modified, summary)
            except (TapeoutError, OSError) as error:
                self.faults.append(Fault(f"{here}/{RUN}", str(error)))
            return
        for name in sorted(names):
            if not name.endswith((".toml", ".json")):
                continue
            try:
                chip = self._read_once(folder / name, _chip)
            except (TapeoutError, OSError) as error:
                self.faults.append(Fault(f"{here}/{name}".removeprefix("./"), str(error)))
                continue
            if chip is not None:
                self.chips[f"{here}/{name}".removeprefix("./")] = chip

    def _read_once(self, path: Path, reader: Any) -> Any:
        """What `reader` makes of the file, kept until the file changes. A fault is kept too."""
        stat = path.stat()
        mark = (stat.st_mtime_ns, stat.st_size)
        kept = self._known.get(path)
        if kept is None or kept[0] != mark:
            try:
                found: Any = reader(path)
            except TapeoutError as error:
                found = error
            kept = self._known[path] = (mark, found)
        if isinstance(kept[1], TapeoutError):
            raise kept[1]
        return kept[1]


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _summary(path: Path) -> RunSummary:
    data = read_json(path, SMALL_BYTES)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise DataError(f"{path.name}: is not {SCHEMA}; make the run again")
    return read(RunSummary, data, path.name)


def _chip(path: Path) -> Chip | None:
    """The chip in a file; None for a file about something else."""
    if path.stat().st_size > SMALL_BYTES:
        return None
    if path.suffix == ".json":
        data = read_json(path, SMALL_BYTES)
    else:
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path.name}: is not TOML: {error}") from None
    if not isinstance(data, dict) or not CHIP_KEYS & data.keys():
        return None
    return read_data(path)


def profile_of(run: Run) -> Profile:
    """The run's profile. Raises DataError for a file that is none."""
    if not run.has(PROFILE):
        raise DataError(f"there is no {PROFILE} in {run.key}")
    data = read_json(run.folder / PROFILE)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(f"{PROFILE}: is not a profile of this version; make the run again")
    return read(Profile, data, PROFILE)


def kernels_of(run: Run) -> Kernels:
    """The run's kernels with their sources. Raises DataError."""
    if not run.has(KERNELS):
        raise DataError(f"there is no {KERNELS} in {run.key}; `tapeout run -o` writes one")
    data = read_json(run.folder / KERNELS)
    if not isinstance(data, dict) or data.get("schema") != KERNELS_SCHEMA:
        raise DataError(f"{KERNELS}: is not {KERNELS_SCHEMA}; make the run again")
    return read(Kernels, data, KERNELS)


def chip_of(run: Run) -> Chip | None:
    """The chip of a run, None if its description is of another version."""
    if run.summary is None:
        return None
    try:
        return from_plain(run.summary.chip, RUN)
    except ChipError:
        return None
