"""A study as a page."""

from tapeout.models.studies import Study
from tapeout.report.page import Bar, Bars, Block, Heading, Page, Paragraph, Table
from tapeout.report.units import figure_cell, significant


def page(study: Study) -> Page:
    blocks: list[Block] = [
        Paragraph(study.question),
        Paragraph(study.verdict),
        Paragraph(
            "Rates by the operator models, of one busy chip; dollars are the owner's, by the same cost model for all. "
            "Modelled, not measured; ranges are the middle 90 % of samples."
        ),
    ]
    for workload in dict.fromkeys(row.workload for row in study.rows):
        rows = [row for row in study.rows if row.workload == workload]
        blocks += [
            Heading(workload),
            Table(
                ("chip", "a second", "USD a million", "range", f"a dollar, {study.reference} = 1"),
                [
                    (
                        row.chip,
                        figure_cell(row.rate, significant(row.rate.value)) if row.rate else "",
                        figure_cell(row.usd, significant(row.usd.value)) if row.usd else "not known",
                        " to ".join(significant(end) for end in row.usd.interval()) if row.usd else "",
                        figure_cell(row.times, significant(row.times.value)) if row.times else "",
                    )
                    for row in rows
                ],
                right=(1, 2, 3, 4),
                caption="; ".join(f"{row.chip}: {row.why}" for row in rows if row.why),
            ),
            Bars(
                f"units a dollar, {study.reference} = 1",
                [Bar(row.chip, row.times.value, significant(row.times.value)) for row in rows if row.times],
            ),
        ]
    blocks += [Heading("What would change it"), *map(Paragraph, study.changes)]
    return Page(f"Study: {study.name}", blocks, kind="study")
