"""A datasheet as a page."""

from collections.abc import Iterator, Sequence

from tapeout.chip.description import BITS_OF_DTYPE, Chip
from tapeout.chip.layout import Layout
from tapeout.figures import Estimate, total
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table, waterfall
from tapeout.report.units import binary_bytes, decimal, figure_cell, significant
from tapeout.silicon.card_class import card_class
from tapeout.silicon.datasheet import Datasheet, assumptions

FIGURE_COLUMNS = ("figure", "value", "range", "provenance")


def page(sheet: Datasheet) -> Page:
    chip = sheet.chip
    blocks: list[Block] = [
        Paragraph(
            f"A design, not silicon: {chip.core_count} cores at {decimal(chip.clock_hz, 'Hz')} in {chip.process_node}. "
            "Rates are its description's; area, power and cost are modelled. Ranges are the middle 90 % of samples of "
            "the model's inputs, and a figure's provenance is the weakest of theirs."
        ),
        Heading("Rates, memory and links"),
        Table(("", "peak"), _description(sheet), right=(1,)),
        Paragraph(_class(chip)),
        Heading("Die"),
        Table(
            FIGURE_COLUMNS,
            [figure_row(each) for each in (sheet.area, sheet.transistors, sheet.approximated_transistors)],
            right=(1, 2),
        ),
        _bars("die area by block", sheet.area),
        Heading("Power"),
        Table(FIGURE_COLUMNS, [figure_row(each) for each in (sheet.tdp, *sheet.workloads)], right=(1, 2)),
        Paragraph(f"TDP is bound by: {sheet.tdp.bound}. Workloads are the roofs between which programs lie."),
        _bars("power by block at TDP", sheet.tdp),
        *(_bars(f"power by block, {each.name}", each) for each in sheet.workloads),
        Heading("Can it be built"),
        Table(
            ("limit", "the chip", "the limit", ""),
            [
                (
                    limit.name,
                    figure_cell(limit.figure),
                    figure_cell(limit.limit),
                    "holds, but its range reaches beyond" if limit.close else "holds" if limit.holds else "EXCEEDED",
                )
                for limit in sheet.limits
            ],
            right=(1, 2),
        ),
        *_doubts(sheet.implausible),
        Heading("Cost"),
        *_cost(sheet),
        Heading("What is assumed or modelled"),
        Paragraph("Replace any of these with a measured figure in a technology file."),
        Table(
            ("figure", "value", "range", "provenance", "source"),
            [
                (each.name, figure_cell(each), _ends(each), str(each.provenance), each.source)
                for each in assumptions(sheet.area, sheet.tdp, *_prices(sheet))
            ],
            right=(1, 2),
        ),
    ]
    return Page(f"Datasheet: {chip.name}", blocks, kind="datasheet")


def _doubts(sentences: Sequence[str]) -> list[Block]:
    if not sentences:
        return []
    return [Heading("Looks implausible"), *(Paragraph(f"{each[0].upper()}{each[1:]}.") for each in sentences)]


def _prices(sheet: Datasheet) -> Sequence[Estimate]:
    return [sheet.manufacturing.price] if sheet.manufacturing else []


def _description(sheet: Datasheet) -> list[tuple[str, str]]:
    chip = sheet.chip
    rates = {dtype: chip.peak_flops_per_s(dtype) for dtype in BITS_OF_DTYPE}
    links = chip.links
    return [
        *((dtype, decimal(rate, "OP/s") if rate else "none") for dtype, rate in rates.items()),
        ("total processing performance", significant(chip.total_processing_performance, 4)),
        ("memory", _memory(chip)),
        ("memory bandwidth", decimal(chip.global_memory.bandwidth_bytes_per_s, "B/s")),
        ("last-level SRAM", binary_bytes(chip.last_level_bytes) if chip.last_level_sram else "none"),
        *_unusual(chip),
        ("scratchpads", f"{chip.core_count} x {binary_bytes(chip.core.scratchpad.size_bytes)}"),
        (
            "links, one direction",
            f"{links.link_count} x {decimal(links.bandwidth_bytes_per_s, 'B/s')}" if links.link_count else "none",
        ),
        ("host, one direction", decimal(chip.host.bandwidth_bytes_per_s, "B/s")),
    ]


def _memory(chip: Chip) -> str:
    memory = chip.hbm
    if memory is None:
        return f"none: tensors live in {binary_bytes(chip.global_memory.size_bytes)} of last-level SRAM"
    return f"{binary_bytes(memory.size_bytes)} {memory.kind}, {memory.stack_count} stacks"


def _class(chip: Chip) -> str:
    found = card_class(chip)
    if not found.reasons:
        return "By its description a training card: exact arrays that keep up with its memory, DRAM, and links."
    return f"By its description an {found.name}: {'; '.join(found.reasons)}."


def _unusual(chip: Chip) -> Iterator[tuple[str, str]]:
    """What most chips do not have."""
    network, package, matrix = chip.network, chip.package, chip.core.matrix
    if network is not None:
        shape = f" of {network.column_count} columns" if network.kind == "mesh" else ""
        mean = Layout.of(chip).mean_hops
        yield (
            "network",
            f"{network.kind}{shape}, {network.link_bytes_per_cycle} bytes a cycle, {mean:.1f} hops on average",
        )
    if package is not None:
        what = "fields of one wafer" if package.kind == "wafer" else "dies in one package"
        yield "dies", f"{package.die_count} {what}"
    if matrix.kind != "outer-product":
        bits = (
            f", operands of {matrix.operand_bits} bits, sums of {matrix.accumulate_bits}" if matrix.is_analogue else ""
        )
        yield "matrix engine", f"{matrix.kind}{bits}"
    if chip.core.vector.left_out:
        yield "functions left out", ", ".join(chip.core.vector.left_out)


def _cost(sheet: Datasheet) -> list[Block]:
    made = sheet.manufacturing
    if made is None:
        missing = Paragraph(f"Not known: {sheet.no_manufacturing}.")
        if not sheet.known_costs:
            return [missing]
        known = [*sheet.known_costs, total("sum of the parts that are known", sheet.known_costs)]
        return [missing, Table(FIGURE_COLUMNS, [figure_row(each) for each in known], right=(1, 2))]
    steps = [*made.cost.parts, *made.price.parts[1:]]
    widest = made.price.sensitivities()[:8]
    return [
        Table(
            FIGURE_COLUMNS,
            [figure_row(each) for each in (made.dies_per_wafer, made.yielded, *made.cost.parts, made.cost)]
            + [figure_row(each) for each in (*made.price.parts[1:], made.price)],
            right=(1, 2),
            caption=f"Yield is bound by: {made.yielded.bound}.",
        ),
        waterfall(
            "price of a chip, USD",
            [(each.name, each.value, significant(each.value)) for each in steps],
            ("price", made.price.value, significant(made.price.value)),
        ),
        Table(
            ("what the price turns on", "from", "to", "price, USD"),
            [
                (
                    each.varied.name,
                    significant(each.varied.low),
                    significant(each.varied.high),
                    f"{significant(each.at_low)} to {significant(each.at_high)}",
                )
                for each in widest
            ],
            right=(1, 2, 3),
        ),
    ]


def figure_row(figure: Estimate) -> tuple[str, str, str, str]:
    """Name, value with unit, range and provenance of a figure."""
    low, high = figure.interval()
    spread = f"{significant(low)} to {significant(high)}" if low < high else ""
    return figure.name, figure_cell(figure), spread, str(figure.provenance)


def _ends(figure: Estimate) -> str:
    return f"{significant(figure.low)} to {significant(figure.high)}" if figure.low < figure.high else ""


def value(figure: Estimate) -> str:
    """A figure's value and unit."""
    return f"{significant(figure.value)} {figure.unit}".strip()


def _bars(title: str, figure: Estimate) -> Bars:
    largest = sorted(figure.parts, key=lambda part: -part.value)
    return Bars(
        title,
        [Bar(part.name, part.value, f"{value(part)}  {part.value / figure.value:.0%}") for part in largest],
    )
