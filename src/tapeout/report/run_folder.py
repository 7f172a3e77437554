"""A run as a folder: what ran, its profile, its kernels' sources with their costs, its trace. Data only.

run.json          what ran on which chip, and its time
profile.json      time by kernel, operator and engine
profile.html      the same to look at
kernels.json.gz   each kernel's source, instructions, waits, and advice
trace.json.gz     for Perfetto and the studio
"""

import gzip
import json
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.report import perfetto
from tapeout.report import profile as profile_report
from tapeout.report.page import to_html
from tapeout.workbench.annotation import InstructionCost, Line, annotate, shown_file
from tapeout.workbench.profiling import profile
from tapeout.workbench.script import Recording, RunTime, Script
from tapeout.workbench.what_if import advise

SCHEMA = "tapeout.run/1"
KERNELS_SCHEMA = "tapeout.kernels/1"
RUN, PROFILE, PAGE, KERNELS, TRACE = "run.json", "profile.json", "profile.html", "kernels.json.gz", "trace.json.gz"
KERNELS_KEPT, ADVISED = 24, 6
"""Programs whose source is kept, the user's own first and then the costliest, and how many of the costliest get advice:
each is simulated again some ten times."""


@dataclass(frozen=True)
class RunSummary:
    """What `run.json` holds. `chip` is the whole description, as a chip file has it. `holds`: what is in the trace."""

    schema: str
    tapeout: str
    script: str
    arguments: tuple[str, ...]
    chip_name: str
    chip_fingerprint: str
    chip: Any
    time: RunTime
    holds: str = ""


@dataclass(frozen=True)
class KernelSource:
    """A program that ran: its source lines with costs, and what would make it faster (empty if nobody asked)."""

    kernel: str
    launches: int
    core_cycles: int
    lines: tuple[Line, ...]
    unplaced: tuple[InstructionCost, ...]
    cycles: int = 0
    advice: str = ""
    doubled: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class Kernels:
    schema: str
    kernels: tuple[KernelSource, ...] = field(default=())


def write(folder: Path, asked: Script, chip: Chip, recorded: Recording, *, all_cores: bool = False) -> str:
    """Write the run into a folder that exists. Returns a sentence on what was written."""
    result = profile(recorded.time, chip, recorded.activities)
    trace = perfetto.trace(recorded.activities, all_cores=all_cores)
    summary = RunSummary(
        schema=SCHEMA,
        tapeout=version("tapeout"),
        script=asked.name,
        arguments=tuple(asked.arguments),
        chip_name=chip.name,
        chip_fingerprint=chip.fingerprint(),
        chip=chip.to_dict(),
        time=recorded.time,
        holds=trace.caption,
    )
    (folder / RUN).write_text(json.dumps(asdict(summary), indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / PROFILE).write_text(result.to_json(), "utf-8")
    (folder / PAGE).write_text(to_html(profile_report.page(result, chip, rows=None)), "utf-8")
    kernels = json.dumps(asdict(_kernels(recorded)), ensure_ascii=False)
    (folder / KERNELS).write_bytes(gzip.compress(kernels.encode(), 6, mtime=0))
    trace.write(folder / TRACE)
    return (
        f"wrote {', '.join((RUN, PROFILE, PAGE, KERNELS, TRACE))} to {folder} ({trace.caption}); see `tapeout studio`"
    )


def _kernels(recorded: Recording) -> Kernels:
    found = annotate(recorded.activities)[:KERNELS_KEPT]
    costliest = sorted(found, key=lambda each: -each.core_cycles)[:ADVISED]
    kept = []
    for each in found:
        advice = advise(each.longest) if each in costliest else None
        kept.append(
            KernelSource(
                kernel=each.kernel,
                launches=each.launches,
                core_cycles=each.core_cycles,
                lines=tuple(replace(line, file=shown_file(line.file)) for line in each.lines),
                unplaced=each.unplaced,
                cycles=each.longest.timing.cycles,
                advice=advice.sentence if advice else "",
                doubled=tuple((variant.part, variant.cycles) for variant in advice.variants) if advice else (),
            )
        )
    return Kernels(KERNELS_SCHEMA, tuple(kept))
