"""A ruling of the export rules as a page."""

from collections.abc import Sequence

from tapeout.figures import Estimate
from tapeout.report.page import Block, Heading, Page, Paragraph, Table
from tapeout.report.units import significant
from tapeout.silicon.export_control import DISCLAIMER, QUANTITIES, YES_OR_NO, Answer, Check, Finding, Ruling

_KIND_HEADINGS = {
    "exclusion": "Exclusions",
    "exception": "Licence exceptions",
    "presumption": "Presumption for foundries and packagers",
    "component": "Parts of the package",
    "review": "How a licence application is judged",
    "notice": "Letters and guidance",
    "withdrawn": "Withdrawn rules",
}

COUNTED = "Counts the vector engines beside the matrix engines, which datasheets mostly do not."


def page(ruling: Ruling) -> Page:
    blocks: list[Block] = [
        Paragraph(f"{ruling.sentence}.{_nearest(ruling)}"),
        Paragraph(DISCLAIMER),
        Table(
            ("rule", "what it says of this chip"),
            [(finding.rule.id, _verdict(finding)) for finding in ruling.findings],
        ),
        Heading("Figures the rules look at"),
        Table(
            ("figure", "value", "range", "provenance"),
            [_figure_row(name, value) for name, value in ruling.quantities.items() if name in QUANTITIES],
            right=(1, 2),
            caption=COUNTED if ruling.chip.design else "",
        ),
        Heading("Control clauses in force"),
    ]
    for finding in ruling.findings:
        if finding.rule.kind == "control":
            blocks += _finding(finding)
    for kind, heading in _KIND_HEADINGS.items():
        found = [finding for finding in ruling.findings if finding.rule.kind == kind]
        if found:
            blocks.append(Heading(heading))
            for finding in found:
                blocks += _finding(finding)
    return Page(f"Export check: {ruling.chip.name} under the rules of {ruling.date}", blocks, kind="export-check")


def _nearest(ruling: Ruling) -> str:
    if ruling.nearest is None:
        return ""
    finding, check = ruling.nearest
    return (
        f" Nearest threshold: {check.condition} ({finding.rule.id}), at {significant(check.margin or 0)} of it; "
        f"{check.remedy} would reach it."
    )


def _figure_row(name: str, value: Estimate) -> tuple[str, str, str, str]:
    label, unit = QUANTITIES[name]
    low, high = value.interval()
    spread = f"{significant(low)} to {significant(high)}" if low < high else ""
    shown = f"{significant(value.value)} {unit}".strip()
    if name in YES_OR_NO:
        shown = "yes" if value.value else "no"
    return label, shown, spread, str(value.provenance)


def _finding(finding: Finding) -> Sequence[Block]:
    rule = finding.rule
    until = f" until {rule.ended}" if rule.ended else ""
    blocks: list[Block] = [
        Paragraph(
            f"{rule.id}: {_verdict(finding)}. {rule.summary[0].upper()}{rule.summary[1:]}. "
            f"In force from {rule.effective}{until}; {rule.citation} ({rule.confidence})."
        )
    ]
    if finding.checks and rule.text_known:
        blocks.append(_checks(finding.checks))
    for way, answer, checks in finding.ways:
        case = "Case" if rule.kind == "notice" else "Way out"
        blocks.append(Paragraph(f"{case}, {way.name}: {answer.value}."))
        blocks.append(_checks(checks))
    return blocks


def _verdict(finding: Finding) -> str:
    rule = finding.rule
    if rule.binds and finding.applies is Answer.NO:
        return f"binds {', '.join(rule.binds)} only"
    if rule.kind == "withdrawn":
        return "does not apply"
    if rule.kind == "presumption":
        return _presumption_verdict(finding)
    if not rule.text_known:
        return "text not known, decides nothing here"
    return {
        Answer.YES: "applies",
        Answer.NO: "does not apply",
        Answer.UNKNOWN: "not known",
    }[finding.applies]


def _presumption_verdict(finding: Finding) -> str:
    holding = [way.name for way, answer, _ in finding.ways if answer is Answer.YES]
    open_ways = [way.name for way, answer, _ in finding.ways if answer is Answer.UNKNOWN]
    if holding:
        return f"does not stand: {holding[0]}"
    if finding.applies is Answer.YES:
        return "stands, no way out"
    if open_ways:
        return f"stands, unless: {'; or '.join(open_ways)}"
    return "does not apply" if finding.applies is Answer.NO else "not known"


def _checks(checks: Sequence[Check]) -> Table:
    return Table(
        ("condition", "met", "value / threshold", "on the threshold with"),
        [
            (
                str(check.condition),
                "range straddles it" if check.straddles else check.answer.value,
                significant(check.margin) if check.margin is not None else "",
                check.remedy,
            )
            for check in checks
        ],
        right=(2,),
    )
