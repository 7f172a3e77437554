"""Owner's cost, and the study of a claim, as pages."""

from collections.abc import Sequence

from tapeout.chip.catalog import COLUMNS
from tapeout.figures import Estimate
from tapeout.report.datasheet import FIGURE_COLUMNS, figure_row
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table
from tapeout.report.units import significant
from tapeout.silicon.ownership import BreakEven, FleetBill, Ownership
from tapeout.silicon.study import CLAIM, Study


def page(
    costs: Ownership, bill: FleetBill, work: Sequence[Estimate], against: tuple[Ownership, BreakEven] | None
) -> Page:
    site = costs.site
    where = site.place if site.place == "us" else f"{site.place}, {site.origin} chip"
    blocks: list[Block] = [
        Paragraph(
            f"One of {site.chip_count:,} chips at site {where}. Owner's cost, not rent. Ranges are the middle 90 % of "
            "samples of all inputs."
        ),
        Heading("Cost"),
        Table(
            FIGURE_COLUMNS,
            [
                figure_row(costs.price.called("price of the chip")),
                figure_row(costs.all_in),
                *(figure_row(part) for part in costs.per_hour.parts),
                figure_row(costs.per_hour),
                figure_row(costs.per_useful_hour),
                *(figure_row(each) for each in work),
            ],
            right=(1, 2),
        ),
        Bars(
            "cost of a chip-hour, USD",
            [
                Bar(part.name, part.value, f"{significant(part.value)}  {part.value / costs.per_hour.value:.0%}")
                for part in costs.per_hour.parts
            ],
        ),
    ]
    blocks += _bill(bill, site.chip_count)
    for each in work:
        blocks.append(Paragraph(f"{each.name[0].upper()}{each.name[1:]} is bound by {each.bound}."))
    turning = work[0] if work else costs.per_useful_hour
    blocks += [Heading(f"What the {turning.name} turns on"), *_tornado(turning)]
    if against:
        blocks += _against(*against)
    return Page(f"Cost of owning: {costs.chip.name}", blocks, kind="cost")


def _bill(bill: FleetBill, chip_count: int) -> list[Block]:
    rows = [bill.chips, bill.servers, bill.facility, bill.capital, bill.power, bill.per_year]
    blocks: list[Block] = [Heading(f"All {chip_count:,} chips")]
    if bill.quarters is not None and bill.late is not None:
        rows.append(bill.late)
        word = "quarter" if bill.quarters == 1 else "quarters"
        blocks.append(Paragraph(f"Deliveries take {bill.quarters:,} {word}."))
    return [*blocks, Table(FIGURE_COLUMNS, [figure_row(each) for each in rows], right=(1, 2))]


def _tornado(figure: Estimate) -> list[Block]:
    widest = figure.sensitivities()[:10]
    rows = [
        (
            each.varied.name,
            f"{significant(each.varied.low)} to {significant(each.varied.high)} {each.varied.unit}".strip(),
            f"{significant(each.at_low)} to {significant(each.at_high)}",
        )
        for each in widest
    ]
    bars = [
        Bar(
            each.varied.name,
            abs(each.at_high - each.at_low),
            f"{significant(each.at_low)} to {significant(each.at_high)}",
            min(each.at_low, each.at_high),
        )
        for each in widest
    ]
    unit = str(figure.unit)
    return [
        Table(("input, one at a time", "its range", unit), rows, right=(1, 2)),
        Bars(f"{figure.name}, {unit}, with each input over its range", bars),
    ]


def _against(other: Ownership, result: BreakEven) -> list[Block]:
    name = other.chip.name
    rows = [
        figure_row(other.per_hour.called(f"chip-hour of {name}")),
        figure_row(result.saving),
        figure_row(result.development.called("development, paid once")),
    ]
    if result.volume is None:
        answer = f"never: {significant(result.chips_each)} chips cost more over their life than one {name}"
    else:
        answer = f"after replacing {result.volume:,.0f} of {name}"
    return [
        Heading(f"Against buying {name}"),
        Paragraph(
            f"{significant(result.chips_each)} chips do the work of one {name}. Development has paid for itself "
            f"{answer}. Something is saved in {result.chance:.0%} of samples."
        ),
        Table(FIGURE_COLUMNS, rows, right=(1, 2)),
    ]


def study_page(study: Study) -> Page:
    name, reference = study.chip.chip.name, study.reference.chip.name
    blocks: list[Block] = [
        Paragraph(
            f'"{CLAIM:g} times an {reference.split("-")[0]} at equal cost" says nothing until one names what is '
            f"counted. A chip-hour of {name} costs {significant(study.chip.per_hour.value)} USD to own, of {reference} "
            f"{significant(study.reference.per_hour.value)} USD, by the same model. Peak figures; software decides the "
            "rest."
        ),
        Table(
            ("counted", f"{name} a dollar / {reference} a dollar", "range", "if the chip were free", "the claim"),
            [
                (
                    COLUMNS[claim.metric].label,
                    significant(claim.ratio.value),
                    " to ".join(map(significant, claim.ratio.interval())),
                    significant(claim.ratio_if_free.value),
                    claim.verdict,
                )
                for claim in study.claims
            ],
            right=(1, 2, 3),
        ),
        Heading("What the export rules leave of arithmetic"),
        Paragraph(
            "A chip just below a threshold of total processing performance, how many make four H100s of float8, what "
            "each may then cost an hour, and what it costs at this site if the chip itself is free."
        ),
        Table(
            ("performance below", "float8, TFLOP/s", "chips", "allowed, USD/h", "free chip, USD/h", "the claim"),
            [
                (
                    significant(each.performance),
                    significant(each.float8_tflops),
                    significant(each.chips_for_claim),
                    significant(each.allowed_usd_per_h.value),
                    significant(each.free_usd_per_h.value),
                    "possible" if each.possible else "cannot hold",
                )
                for each in study.capped
            ],
            right=(0, 1, 2, 3, 4),
        ),
        Heading("Tokens a dollar as measured, H100 = 1"),
        Table(
            ("chip", "serving", "times an H100", "the claim", "source"),
            [(each.chip, each.workload, f"{each.times_h100:.2g}", each.verdict, each.source) for each in study.served],
            right=(2,),
            caption="Chips with float4 arithmetic against one without: the claim turns on type, workload, latency and "
            "date.",
        ),
        Heading("Published rates a dollar, H100 = 1"),
        Table(
            ("chip", "counted", "times an H100"),
            [(chip, metric, f"{ratio:.2f}") for chip, metric, ratio in study.published],
            right=(2,),
            caption="Owner's cost of a neocloud, SemiAnalysis, August 2025, as catalogued. Measured rates are products "
            "of large matrices.",
        ),
    ]
    return Page(f"Four times an H100 at equal cost: {name}", blocks, kind="study")
