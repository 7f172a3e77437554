"""Annotated kernels in the terminal: a source line, its cycles and waiting, and under it its instructions."""

from collections.abc import Iterator, Mapping

from rich.text import Text

from tapeout.workbench.annotation import Annotation, InstructionCost, Line

REASONS_SHOWN = 2
INSTRUCTION_WIDTH = 88


def render(annotation: Annotation, *, instructions: bool = True) -> Iterator[Text]:
    """Lines of text. Percentages are of the time of all cores; engines work side by side, so they may exceed 100."""
    launches = "launch" if annotation.launches == 1 else "launches"
    yield Text(
        f"{annotation.kernel}: {annotation.launches:,} {launches}, {annotation.core_cycles:,} core cycles", style="bold"
    )
    yield Text(f"{'busy':>14} {'waiting':>14}  line")
    file = None
    for line in annotation.lines:
        if line.file != file:
            file = line.file
            yield Text(f"{'':30} {file}", style="dim")
        yield _source(line, annotation.core_cycles)
        if instructions:
            yield from map(_instruction, line.instructions)
    if annotation.unplaced:
        yield Text(f"{'':30} without a source line", style="dim")
        if instructions:
            yield from map(_instruction, annotation.unplaced)


def _source(line: Line, core_cycles: int) -> Text:
    if not line.instructions:
        return Text(f"{'':30} {line.number:5} {line.text}")
    waiting = line.waiting
    share = line.busy_cycles / max(core_cycles, 1)
    style = "bold red" if share >= 0.25 else "bold yellow" if share >= 0.05 else "bold"
    text = Text(f"{line.busy_cycles:>14,} {sum(waiting.values()):>14,} ", style=style)
    text.append(f" {line.number:5} {line.text}", style="bold")
    text.append(f"  {share:.1%}{_reasons(waiting)}", style="cyan")
    return text


def _instruction(item: InstructionCost) -> Text:
    shown = item.text if len(item.text) <= INSTRUCTION_WIDTH else item.text[: INSTRUCTION_WIDTH - 1] + "…"
    text = Text(f"{item.busy_cycles:>14,} {sum(item.waiting.values()):>14,} ", style="dim")
    text.append(f"         {item.index:4} {item.engine:9} x{item.count:<7,} {shown}", style="dim")
    text.append(_reasons(item.waiting), style="cyan")
    return text


def _reasons(waiting: Mapping[str, int]) -> str:
    largest = sorted(waiting.items(), key=lambda entry: (-entry[1], entry[0]))[:REASONS_SHOWN]
    return "".join(f", {reason} {cycles:,}" for reason, cycles in largest)
