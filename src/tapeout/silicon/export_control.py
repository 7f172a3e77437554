"""US export rules applied to a chip on a date. Not legal advice.

Takes the rules of `data/export_rules.toml` and an `Accelerator`. Gives a `Ruling`: which rules were in force, what each
says of the chip, which clause decides, how far the chip is from each threshold and what would move it across. A figure
that is not known makes a condition unknown, never false.
"""

import datetime
import enum
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from tapeout.accelerator import Accelerator
from tapeout.errors import InternalError
from tapeout.figures import Estimate, Provenance, Stated, number
from tapeout.silicon.technology import SiliconError

DISCLAIMER = (
    "Not legal advice. The rules change, turn on facts this program does not have (destination, end user, Entity "
    "List), and some of their text was not available; check 15 CFR 730-774 and ask counsel."
)
QUANTITIES = {
    "total_processing_performance": ("total processing performance", ""),
    "performance_density": ("performance density", "1/mm²"),
    "transfer_rate": ("transfer rate to other chips, both directions", "GB/s"),
    "memory_bandwidth": ("DRAM bandwidth", "GB/s"),
    "memory_and_transfer_rate": ("DRAM bandwidth and transfer rate together", "GB/s"),
    "memory_bandwidth_density": ("bandwidth of a memory stack over its area", "GB/s/mm²"),
    "transistors": ("aggregated approximated transistor count", "Gtransistor"),
    "node": ("process node class", "nm"),
    "year": ("year of export", ""),
    "data_center": ("designed or marketed for data centres", ""),
    "hbm": ("has high-bandwidth memory", ""),
    "approved_designer": ("approved or authorized designer", ""),
    "packaged_outside": ("packaged outside Macau and D:5 by the foundry or an approved packager", ""),
    "sold_in_us": ("commercially available in the United States", ""),
    "us_export": ("exported from the United States", ""),
    "outside_3A090_a": ("outside 3A090.a by its own figures", ""),
}
YES_OR_NO = (
    "data_center",
    "hbm",
    "approved_designer",
    "packaged_outside",
    "sold_in_us",
    "us_export",
    "outside_3A090_a",
)


class Answer(enum.Enum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"

    @classmethod
    def all(cls, answers: "list[Answer]") -> "Answer":
        if Answer.NO in answers:
            return Answer.NO
        return Answer.UNKNOWN if Answer.UNKNOWN in answers else Answer.YES


@dataclass(frozen=True)
class Condition:
    """One comparison of a rule."""

    quantity: str
    relation: str  # at_least, above or below
    threshold: float

    def __str__(self) -> str:
        label, unit = QUANTITIES[self.quantity]
        if self.quantity in YES_OR_NO:
            return label if self.relation == "at_least" else f"not: {label}"
        word = {"at_least": "at least", "above": "above", "below": "below"}[self.relation]
        return f"{label} {word} {self.threshold:g}{f' {unit}' if unit else ''}"

    def compare(self, value: float) -> bool:
        return {
            "at_least": value >= self.threshold,
            "above": value > self.threshold,
            "below": value < self.threshold,
        }[self.relation]


@dataclass(frozen=True)
class Way:
    """One way out of a presumption."""

    name: str
    when: tuple[Condition, ...]


@dataclass(frozen=True)
class Rule:
    id: str
    kind: str
    effective: datetime.date
    ended: datetime.date | None
    citation: str
    confidence: str
    summary: str
    text_known: bool
    eccn: str
    when: tuple[Condition, ...]
    lifts: tuple[str, ...]
    binds: tuple[str, ...]
    ways: tuple[Way, ...]

    def in_force(self, date: datetime.date) -> bool:
        return self.effective <= date and (self.ended is None or date < self.ended)


KINDS = ("control", "exclusion", "exception", "presumption", "review", "component", "notice", "withdrawn")


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule, in force or not."""
    text = (resources.files("tapeout.silicon") / "data" / "export_rules.toml").read_text("utf-8")
    return tuple(_rule(table) for table in tomllib.loads(text)["rule"])


def _rule(table: dict[str, Any]) -> Rule:
    if table["kind"] not in KINDS:
        raise InternalError(f"export rule {table['id']}: unknown kind {table['kind']!r}")
    return Rule(
        id=table["id"],
        kind=table["kind"],
        effective=table["effective"],
        ended=table.get("ended"),
        citation=table["citation"],
        confidence=table["confidence"],
        summary=table["summary"],
        text_known=table.get("text_known", True),
        eccn=table.get("eccn", ""),
        when=tuple(_condition(each) for each in table["when"]),
        lifts=tuple(table.get("lifts", ())),
        binds=tuple(table.get("binds", ())),
        ways=tuple(
            Way(each["name"], tuple(_condition(inner) for inner in each["when"])) for each in table.get("way", ())
        ),
    )


def _condition(table: dict[str, Any]) -> Condition:
    relation = next(key for key in ("at_least", "above", "below") if key in table)
    if table["quantity"] not in QUANTITIES:
        raise InternalError(f"export rules: unknown quantity {table['quantity']!r}")
    return Condition(table["quantity"], relation, float(table[relation]))


def quantities(chip: Accelerator) -> dict[str, Estimate]:
    """A chip as the rules see it. A quantity that is missing is not known."""
    performance, area = chip.total_processing_performance, chip.die_area
    rate, bandwidth, footprint = chip.links.rate, chip.dram.bandwidth, chip.dram.footprint
    node = re.search(r"\d+", chip.process_node.value) if chip.process_node else None
    found: dict[str, Estimate | None] = {
        "total_processing_performance": performance,
        "performance_density": performance / area if performance and area else None,
        "transfer_rate": 2 * rate if rate else None,
        "memory_bandwidth": bandwidth,
        "memory_and_transfer_rate": bandwidth + 2 * rate if bandwidth and rate else None,
        "transistors": chip.transistors_attested,
        "node": _stated("node", float(node[0]), chip.process_node) if node else None,
        "hbm": _stated("hbm", float("HBM" in chip.dram.kind.value), chip.dram.kind) if chip.dram.kind else None,
        "data_center": (
            _stated("data_center", float(chip.data_center.value), chip.data_center) if chip.data_center else None
        ),
        "memory_bandwidth_density": bandwidth / footprint if bandwidth and footprint else None,
    }
    units = {name: "" if name == "node" else QUANTITIES[name][1] for name in found}
    return {name: figure.to(units[name]) for name, figure in found.items() if figure is not None}


def _stated(name: str, value: float, fact: Stated[Any] | None) -> Estimate:
    return number(value).called(name, provenance=fact.provenance if fact else Provenance.DEFINED)


@dataclass(frozen=True)
class Check:
    """One condition against the chip. `answer` is unknown when the figure is, or when its range straddles the
    threshold; `remedy` says what would turn it round."""

    condition: Condition
    value: Estimate | None
    answer: Answer
    straddles: bool
    remedy: str

    @property
    def margin(self) -> float | None:
        """The value over the threshold, or None."""
        if self.value is None or self.condition.threshold == 0 or self.condition.quantity in YES_OR_NO:
            return None
        return self.value.value / self.condition.threshold


@dataclass(frozen=True)
class Finding:
    """One rule against the chip. `ways` holds, with its checks, each way out of a presumption and each case in which a
    notice is reported to bind."""

    rule: Rule
    applies: Answer
    checks: tuple[Check, ...]
    ways: tuple[tuple[Way, Answer, tuple[Check, ...]], ...] = ()


@dataclass(frozen=True)
class Ruling:
    """Ruling on a chip under the rules of `date`, by its `quantities`. `eccn` is "" for a chip outside 3A090, None when
    that cannot be decided."""

    chip: Accelerator
    quantities: Mapping[str, Estimate]
    date: datetime.date
    eccn: str | None
    deciding: tuple[Finding, ...]
    findings: tuple[Finding, ...]

    @property
    def nearest(self) -> tuple[Finding, Check] | None:
        """The condition of a control clause whose threshold is nearest to the chip's figure, by ratio."""
        measured = [
            (finding, check)
            for finding in self.findings
            if finding.rule.kind == "control"
            for check in finding.checks
            if check.margin
        ]
        return min(measured, key=lambda pair: abs(math.log(pair[1].margin or 1)), default=None)

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        name = self.chip.name
        if not any(f.rule.kind == "control" and f.rule.text_known for f in self.findings):
            return f"{name}: no rule of this table was in force on {self.date}"
        clauses = ", ".join(finding.rule.id for finding in self.deciding)
        if self.eccn is None:
            missing = sorted(
                {
                    QUANTITIES[check.condition.quantity][0]
                    for finding in self.deciding
                    for check in finding.checks
                    if check.answer is Answer.UNKNOWN
                }
            )
            return f"{name} on {self.date}: cannot be decided; {clauses} turns on {' and '.join(missing)}"
        if self.eccn:
            return f"{name} on {self.date}: controlled as {self.eccn}, by {clauses}"
        lifted = f", released by {clauses}" if clauses else ""
        return f"{name} on {self.date}: outside 3A090{lifted}{self._but()}"

    def _but(self) -> str:
        """What decides in effect for a chip outside 3A090, as the end of a sentence."""
        reasons = []
        for finding in self.findings:
            rule = finding.rule
            binding = not finding.ways or any(answer is Answer.YES for _, answer, _ in finding.ways)
            if rule.kind == "notice" and self.chip.vendor in rule.binds and binding:
                reasons.append(f"{rule.id} ({rule.effective}, {rule.confidence}): {rule.summary}")
            # Of a chip that others sell one does not know what its designer attested.
            if rule.kind == "presumption" and self.chip.design and finding.applies is not Answer.NO:
                unless = finding.ways[0][0].name if finding.applies is Answer.UNKNOWN else "no way out is left"
                reasons.append(f"the {rule.id}, stands: {rule.summary}, unless {unless}")
        return f"; but {'; and '.join(reasons)}" if reasons else ""


def check(chip: Accelerator, date: datetime.date, circumstances: Mapping[str, bool] | None = None) -> Ruling:
    """Apply the rules in force on a date.

    `circumstances` may state what no figure of the chip says: approved_designer, packaged_outside, sold_in_us,
    us_export, data_center. What it leaves out is unknown.
    """
    oldest = min(rule.effective for rule in rules())
    if date < oldest:
        raise SiliconError(f"no rule of {date} is known; the oldest known is of {oldest}")
    own = quantities(chip)
    known = own | {"year": number(float(date.year))}
    for name, state in (circumstances or {}).items():
        if name not in YES_OR_NO:
            raise SiliconError(f"unknown circumstance {name!r}; known: {', '.join(YES_OR_NO)}")
        known[name] = number(float(state))
    in_force = [rule for rule in rules() if rule.in_force(date)]
    findings: list[Finding] = []
    for rule in in_force:
        if rule.kind == "presumption":
            continue
        checks = tuple(_check(condition, known, chip) for condition in rule.when)
        if rule.binds and chip.vendor not in rule.binds:
            applies = Answer.NO
        elif not rule.text_known:
            applies = Answer.UNKNOWN
        elif rule.kind == "withdrawn":
            applies = Answer.NO
        else:
            applies = Answer.all([each.answer for each in checks])
        findings.append(Finding(rule, applies, checks, _ways(rule, known, chip)))
    eccn, deciding = _classify(findings)
    outside = eccn is not None and eccn not in ("3A090.a", "3A090")
    known["outside_3A090_a"] = number(float(outside))
    for rule in in_force:
        if rule.kind == "presumption":
            findings.append(_presumption(rule, known, chip))
    # Exceptions and review policies are for chips that are controlled in the first place.
    findings = [
        replace(f, applies=Answer.NO)
        if f.rule.kind in ("exception", "review") and not (eccn or "").startswith(f.rule.eccn)
        else f
        for f in findings
    ]
    return Ruling(chip, own, date, eccn, tuple(deciding), tuple(findings))


def _classify(findings: list[Finding]) -> tuple[str | None, list[Finding]]:
    """The ECCN and the findings that decide it: the first control that applies, unless an exclusion lifts it."""
    controls = [f for f in findings if f.rule.kind == "control" and f.rule.text_known]
    exclusions = [f for f in findings if f.rule.kind == "exclusion"]
    for answer in (Answer.YES, Answer.UNKNOWN):
        for finding in controls:
            if finding.applies is not answer:
                continue
            lifted = [f for f in exclusions if finding.rule.eccn in f.rule.lifts and f.applies is Answer.YES]
            if lifted:
                return "", lifted
            return (finding.rule.eccn if answer is Answer.YES else None), [finding]
    return "", []


def _presumption(rule: Rule, quantities: Mapping[str, Estimate], chip: Accelerator) -> Finding:
    checks = tuple(_check(condition, quantities, chip) for condition in rule.when)
    ways = _ways(rule, quantities, chip)
    applies = Answer.all([each.answer for each in checks])
    if applies is Answer.YES and any(answer is Answer.YES for _, answer, _ in ways):
        applies = Answer.NO
    elif applies is Answer.YES and any(answer is Answer.UNKNOWN for _, answer, _ in ways):
        applies = Answer.UNKNOWN
    return Finding(rule, applies, checks, ways)


def _ways(
    rule: Rule, quantities: Mapping[str, Estimate], chip: Accelerator
) -> tuple[tuple[Way, Answer, tuple[Check, ...]], ...]:
    judged = []
    for way in rule.ways:
        checks = tuple(_check(condition, quantities, chip) for condition in way.when)
        judged.append((way, Answer.all([each.answer for each in checks]), checks))
    return tuple(judged)


def _check(condition: Condition, quantities: Mapping[str, Estimate], chip: Accelerator) -> Check:
    value = quantities.get(condition.quantity)
    if value is None:
        return Check(condition, None, Answer.UNKNOWN, False, "")
    low, high = value.interval()
    straddles = condition.compare(low) != condition.compare(high)
    answer = Answer.YES if condition.compare(value.value) else Answer.NO
    return Check(condition, value, Answer.UNKNOWN if straddles else answer, straddles, _remedy(condition, value, chip))


def _remedy(condition: Condition, value: Estimate, chip: Accelerator) -> str:
    """Return what would put the figure on the threshold."""
    if condition.quantity not in _REMEDIES or not value.value:
        return ""
    factor = condition.threshold / value.value
    clock = ""
    # A described chip's performance goes with its clock; a catalogued one's clocks are not what its peak is stated at.
    if chip.design and condition.quantity == "total_processing_performance":
        clock = f", as at a clock of {chip.design.clock_hz * factor / 1e6:,.0f} MHz"
    return _REMEDIES[condition.quantity].format(factor=factor, inverse=1 / factor) + clock


_REMEDIES = {
    "total_processing_performance": "{factor:.2f} times the arithmetic",
    "performance_density": "{inverse:.2f} times the die area, or {factor:.2f} times the arithmetic",
    "transfer_rate": "{factor:.2f} times the link bandwidth",
    "memory_bandwidth": "{factor:.2f} times the memory bandwidth",
    "memory_bandwidth_density": "{factor:.2f} times the bandwidth of a stack",
    "transistors": "{factor:.2f} times the transistors, by die area or a less dense node",
}
