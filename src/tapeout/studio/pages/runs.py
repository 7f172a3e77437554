"""One run: its profile, its kernels' sources, its timeline."""

from tapeout.report import profile as profile_report
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Source, SourceLine, Table, Widget
from tapeout.report.run_folder import KernelSource
from tapeout.report.units import Shown
from tapeout.studio.library import Run, chip_of, kernels_of, profile_of
from tapeout.studio.pages.overview import address
from tapeout.workbench.annotation import InstructionCost
from tapeout.workbench.plain_data import DataError


def profile(run: Run) -> Page:
    made = profile_report.page(profile_of(run), chip_of(run), rows=None)
    return Page(f"{run.key}: {made.title}", made.blocks, made.kind)


def kernels(run: Run) -> Page:
    """All kernels whose source was kept."""
    found = kernels_of(run)
    whole = sum(kernel.core_cycles for kernel in found.kernels) or 1
    rows = [
        (
            Shown(kernel.kernel, href=address("kernel", run.key, n=str(number))),
            Shown(f"{kernel.launches:,}", value=kernel.launches),
            Shown(f"{kernel.core_cycles:,}", value=kernel.core_cycles),
            Shown(f"{kernel.core_cycles / whole:.1%}", value=kernel.core_cycles / whole),
            kernel.advice,
        )
        for number, kernel in enumerate(found.kernels)
    ]
    return Page(
        f"{run.key}: kernels",
        [Table(("kernel", "launches", "core cycles", "share", "advice"), rows, right=(1, 2, 3))],
        kind="kernels",
    )


def kernel(run: Run, number: int) -> Page:
    """One kernel: advice, source with heat, instructions folded. Raises DataError for a number that is none."""
    found = kernels_of(run).kernels
    if not 0 <= number < len(found):
        raise DataError(f"{run.key} has no kernel {number}; it has {len(found)}")
    shown = found[number]
    blocks: list[Block] = []
    if shown.advice:
        blocks.append(Paragraph(shown.advice))
    waits = _waits(shown)
    if waits:
        bars = [Bar(reason, cycles, f"{cycles:,}") for reason, cycles in waits]
        blocks.append(Bars("cycles that engines waited, by reason", bars))
    doubled = [(str(part), int(cycles)) for part, cycles in shown.doubled]
    if doubled and shown.cycles:
        bars = [Bar(part, cycles, f"{cycles:,}  {cycles / shown.cycles:.0%}") for part, cycles in doubled]
        blocks.append(Bars(f"cycles of its longest launch ({shown.cycles:,}) with one part doubled", bars))
    blocks += [Heading("Source"), Source("share of the cores' time; click a line for its instructions", _lines(shown))]
    return Page(
        f"{shown.kernel}: {shown.launches:,} launches, {shown.core_cycles:,} core cycles", blocks, kind="kernel"
    )


def _waits(kernel: KernelSource) -> list[tuple[str, int]]:
    waits: dict[str, int] = {}
    for item in (*(item for line in kernel.lines for item in line.instructions), *kernel.unplaced):
        for reason, cycles in item.waiting.items():
            waits[reason] = waits.get(reason, 0) + cycles
    return sorted(waits.items(), key=lambda pair: -pair[1])


def _lines(kernel: KernelSource) -> list[SourceLine]:
    whole = kernel.core_cycles or 1
    lines = []
    for line in kernel.lines:
        waiting = sum(line.waiting.values())
        note = f"{line.busy_cycles:,} busy, {waiting:,} waiting" if line.instructions else ""
        below = tuple(map(_instruction, line.instructions))
        lines.append(SourceLine(line.number, line.text, line.busy_cycles / whole, note, below))
    if kernel.unplaced:
        busy = sum(item.busy_cycles for item in kernel.unplaced)
        below = tuple(map(_instruction, kernel.unplaced))
        lines.append(SourceLine(0, "(no line of the source)", busy / whole, f"{busy:,} busy", below))
    return lines


def _instruction(item: InstructionCost) -> str:
    waits = ", ".join(f"{reason} {cycles:,}" for reason, cycles in item.waiting.items())
    return f"{item.busy_cycles:>12,}  {item.index:5} {item.engine:9} x{item.count:<8,} {item.text}  {waits}"


def timeline(run: Run) -> Page:
    data = {"trace": address("api/trace", run.key), "details": address("api/span", run.key)}
    text = "The timeline needs the studio's script."
    return Page(
        f"{run.key}: timeline",
        [
            Paragraph(
                "Wheel or W and S: zoom; drag or A and D: move; click a span for its details. Times are the chip's."
            ),
            Widget("timeline", text, {**data, "raw": address("raw", run.key)}),
        ],
        kind="timeline",
    )
