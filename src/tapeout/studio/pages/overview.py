"""The first page: the folder's runs and chips, and what was skipped."""

from urllib.parse import quote, urlencode

from tapeout.report.page import Block, Heading, Page, Paragraph, Table
from tapeout.report.run_folder import KERNELS, PROFILE, TRACE
from tapeout.report.run_time import seconds
from tapeout.report.units import Shown, decimal
from tapeout.studio.library import Library, Run


def address(view: str, key: str, **query: str) -> str:
    """The address of a view of one thing of the folder."""
    asked = f"?{urlencode(query)}" if query else ""
    return f"/{view}/{quote(key)}{asked}"


def page(library: Library) -> Page:
    blocks: list[Block] = []
    if any(key.startswith("sample/") for key in library.runs):
        blocks.append(
            Paragraph(
                f"There is no run in {library.root} yet, so these are samples. `tapeout run -o {library.root}/first "
                "script.py` makes one."
            )
        )
    blocks += [Heading(f"Runs: {len(library.runs):,}"), _runs(library)]
    if library.chips:
        blocks += [Heading(f"Chips: {len(library.chips):,}"), _chips(library)]
    if library.faults:
        rows = [(fault.key, fault.reason) for fault in library.faults]
        blocks += [Heading(f"Skipped: {len(rows):,}"), Table(("file", "why"), rows)]
    return Page(f"Studio: {library.root.name or library.root}", blocks, kind="studio")


def _runs(library: Library) -> Table:
    return Table(
        ("run", "script", "chip", "time", "kernels", "views"),
        [
            (
                Shown(run.key, href=address("run" if run.has(PROFILE) else "kernels", run.key)),
                _script(run),
                run.chip_name,
                Shown(seconds(run.summary.time.total_ps), value=run.summary.time.total_ps / 1e12, unit="s")
                if run.summary
                else "",
                Shown(f"{count:,}", value=count) if run.summary and (count := _kernels(run)) else "",
                Shown("timeline", href=address("timeline", run.key)) if run.has(TRACE) else "",
            )
            for run in library.runs.values()
        ],
        right=(3, 4),
        caption="Click a heading to sort.",
    )


def _script(run: Run) -> str:
    return " ".join((run.summary.script, *run.summary.arguments))[:80] if run.summary else ""


def _kernels(run: Run) -> int:
    return run.summary.time.counts.get("kernel", 0) if run.summary else 0


def _chips(library: Library) -> Table:
    return Table(
        ("chip", "name", "cores", "clock", "memory bandwidth"),
        [
            (
                Shown(key, href=f"/chips?{urlencode({'base': key})}"),
                chip.name,
                Shown(str(chip.core_count), value=chip.core_count),
                decimal(chip.clock_hz, "Hz"),
                decimal(chip.global_memory.bandwidth_bytes_per_s, "B/s"),
            )
            for key, chip in library.chips.items()
        ],
        right=(2, 3, 4),
    )


def links_of(run: Run) -> list[tuple[str, str]]:
    """The views of one run."""
    views = [("Profile", "run", PROFILE), ("Kernels", "kernels", KERNELS), ("Timeline", "timeline", TRACE)]
    return [(words, address(view, run.key)) for words, view, name in views if run.has(name)]
