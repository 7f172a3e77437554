"""A profile as a page: the whole, a roofline, then tables by kernel, operator, engine and block of the die."""

from collections.abc import Mapping, Sequence

from tapeout.chip import Chip
from tapeout.report.page import Bar, Bars, Block, Dot, Heading, Page, Paragraph, Scatter, Table
from tapeout.report.run_time import plain_lines, seconds
from tapeout.report.units import Shown, decimal, significant
from tapeout.workbench.at_work import AtWork
from tapeout.workbench.profiling import EnergyRow, KernelRow, Profile

ROWS = 15
"""Rows of a table on the terminal; the JSON file has all."""


def page(profile: Profile, chip: Chip | None, *, rows: int | None = ROWS) -> Page:
    """The profile of a run on `chip`; `rows` bounds each table, None shows all. The roofline is for the whole page, and
    for a chip that is known."""
    run = profile.run
    blocks: list[Block] = [Paragraph("\n".join(plain_lines(run)))]
    if run.total_ps:
        idle = profile.cores_idle_ps / run.total_ps
        blocks.append(Paragraph(f"Cores without a kernel: {seconds(profile.cores_idle_ps)} ({idle:.0%})."))
    if profile.energy:
        blocks.append(Paragraph(_energy(profile.energy, run.total_ps)))
    if profile.kernels:
        blocks += [Heading("Kernels"), _kernels(profile, rows), _by_bound(profile.kernels)]
        if rows is None and chip is not None:
            blocks.append(_roofline(profile.kernels, chip))
    blocks += [Heading("Operators"), _operators(profile, rows), Heading("Engines, over all kernels and cores")]
    blocks.append(_engines(profile))
    if profile.at_work:
        blocks += [Heading("Share of the chip at work"), *_at_work(profile.at_work)]
    return Page(f"Profile on {run.chip}", blocks, kind="profile")


def _energy(energy: EnergyRow, total_ps: int) -> str:
    low, high = significant(energy.low_j * 1e3), significant(energy.high_j * 1e3)
    watts = significant(energy.total_j / (total_ps / 1e12))
    largest = sorted(energy.by_block_j.items(), key=lambda item: -item[1])[:3]
    blocks = ", ".join(f"{name} {joules / energy.total_j:.0%}" for name, joules in largest)
    return (
        f"Energy: {significant(energy.total_j * 1e3)} mJ ({low} to {high}; {energy.provenance}), "
        f"{watts} W on average: {blocks}."
    )


def _time(picoseconds: int) -> Shown:
    return Shown(seconds(picoseconds), value=picoseconds / 1e12, unit="s")


def _share(share: float, digits: int = 0) -> Shown:
    return Shown(f"{share:.{digits}%}", value=share)


def _kernels(profile: Profile, rows: int | None) -> Table:
    return Table(
        ("kernel", "launches", "time", "share", "bound by", "matrix", "roofline", "HBM", "waits for"),
        [
            (
                row.name,
                Shown(f"{row.launches:,}", value=row.launches),
                _time(row.total_ps),
                _share(row.share, 1),
                row.bound,
                _share(row.matrix_utilisation),
                _share(row.roofline_share),
                _bandwidth(row),
                _largest(row.stalls),
            )
            for row in profile.kernels[:rows]
        ],
        right=(1, 2, 3, 5, 6, 7),
        caption=_left(len(profile.kernels), rows),
    )


def _by_bound(kernels: Sequence[KernelRow]) -> Bars:
    taken: dict[str, int] = {}
    for row in kernels:
        taken[row.bound] = taken.get(row.bound, 0) + row.total_ps
    ordered = sorted(taken.items(), key=lambda item: -item[1])
    return Bars("time of kernels by bound", [Bar(name, time / 1e12, seconds(time)) for name, time in ordered])


def _roofline(kernels: Sequence[KernelRow], chip: Chip) -> Scatter:
    dots = [
        Dot(
            f"{row.name}: {row.share:.1%} of the time",
            row.operations / row.hbm_bytes,
            row.operations / (row.total_ps / 1e12),
            row.share,
        )
        for row in kernels
        if row.operations and row.hbm_bytes and row.total_ps
    ]
    memory = chip.global_memory.bandwidth_bytes_per_s
    lines = []
    for label, peak in (
        ("matrix, bfloat16", chip.peak_flops_per_s("bfloat16")),
        ("vector, float32", 2.0 * chip.core.vector.lane_count * chip.core_count * chip.clock_hz),
    ):
        ridge = peak / memory
        lines.append((label, [(ridge / 1000, peak / 1000), (ridge, peak), (ridge * 100, peak)]))
    return Scatter("roofline", "operations a byte of main memory", "operations a second", dots, lines)


def _operators(profile: Profile, rows: int | None) -> Table:
    return Table(
        ("operator", "calls", "time", "share", "on the host, time unknown"),
        [
            (
                row.name,
                Shown(f"{row.launches:,}", value=row.launches),
                _time(row.total_ps),
                _share(row.share, 1),
                Shown(f"{row.host_calls:,}", value=row.host_calls) if row.host_calls else "",
            )
            for row in profile.operators[:rows]
        ],
        right=(1, 2, 3, 4),
        caption=_left(len(profile.operators), rows),
    )


def _engines(profile: Profile) -> Table:
    return Table(
        ("engine", "busy", "no work for the core", "waiting"),
        [
            (
                row.name,
                _share(row.busy, 1),
                _share(row.unused_cores, 1),
                ", ".join(f"{reason} {share:.0%}" for reason, share in row.stalls.items() if share >= 0.005),
            )
            for row in profile.engines
        ],
        right=(1, 2),
    )


def _at_work(found: AtWork) -> list[Block]:
    return [
        Paragraph(
            f"{found.area_share:.0%} of the die's area and {found.transistor_share:.0%} of its transistors were at "
            "work on average: block by block, its share of the die times the share of the run that it was busy. "
            "Area is modelled; float64 lanes count as idle."
        ),
        Table(
            ("block", "share of area", "share of transistors", "busy"),
            [
                (block.name, _share(block.area_share), _share(block.transistor_share), _share(block.busy, 1))
                for block in found.blocks
            ],
            right=(1, 2, 3),
        ),
    ]


def _bandwidth(row: KernelRow) -> str:
    return decimal(row.hbm_bytes / (row.total_ps / 1e12), "B/s") if row.total_ps else ""


def _largest(shares: Mapping[str, float]) -> str:
    reason = max(shares, key=lambda name: shares[name], default="")
    return f"{reason} {shares[reason]:.0%}" if reason else ""


def _left(count: int, rows: int | None) -> str:
    return f"{count - rows:,} more in profile.json" if rows is not None and count > rows else ""
