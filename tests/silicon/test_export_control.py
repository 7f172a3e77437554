"""Chips whose export status is public record, on dates that matter; what is unknown stays unknown."""

import dataclasses
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.accelerator import of_catalogued
from tapeout.chip import inference, tiny, training
from tapeout.chip.catalog import CataloguedChip, Fact
from tapeout.silicon import export_control as rules
from tapeout.silicon import technology
from tapeout.silicon.export_control import Answer
from tapeout.silicon.naming import accelerator
from tapeout.silicon.technology import SiliconError

FIGURES = technology.load()
UNDER_2022 = datetime.date(2023, 1, 1)
SUBMISSION = datetime.date(2024, 9, 18)
LATE_2026 = datetime.date(2026, 11, 22)


def ruling(name, date, **circumstances):
    return rules.check(accelerator(name, FIGURES), date, circumstances)


def finding(ruled, rule_id):
    return next(each for each in ruled.findings if each.rule.id.startswith(rule_id))


def chip(**facts):
    cells = {name: Fact(value, "datasheet", "test") for name, value in facts.items()}
    return of_catalogued(CataloguedChip("chip", cells))


@pytest.mark.parametrize(
    ("name", "date", "eccn", "clause"),
    [
        ("A100", UNDER_2022, "3A090", "3A090 (2022)"),
        ("H100", UNDER_2022, "3A090", "3A090 (2022)"),
        ("A800", UNDER_2022, "", None),  # its links were cut to 400 GB/s for this rule
        ("H800", UNDER_2022, "", None),
        ("H100", SUBMISSION, "3A090.a", "3A090.a.1"),
        ("H800", SUBMISSION, "3A090.a", "3A090.a.1"),
        ("A800", SUBMISSION, "3A090.a", "3A090.a.1"),
        ("H20", SUBMISSION, "", None),
        ("L20", SUBMISSION, "", None),
        ("L40-48GB", SUBMISSION, "3A090.b", "3A090.b.1"),
        ("RTX 4090", SUBMISSION, "3A090.a", "3A090.a.1"),
        ("Ascend 910B3", SUBMISSION, "3A090.a", "3A090.a.1"),
        ("Ascend 910B4", SUBMISSION, "3A090.a", "3A090.a.2"),
        ("MTIA v2", SUBMISSION, "3A090.a", "3A090.a.2"),
        ("H100", LATE_2026, "3A090.a", "3A090.a.1"),
        ("H20", LATE_2026, "", None),
        ("MTIA v2", LATE_2026, "3A090.a", "3A090.a.2"),
    ],
)
def test_known_cases(name, date, eccn, clause):
    ruled = ruling(name, date)
    assert ruled.eccn == eccn
    assert [each.rule.id for each in ruled.deciding] == ([clause] if clause else [])


def test_a_consumer_card_below_4800_would_be_released_and_the_4090_is_not():
    consumer = dataclasses.replace(
        chip(half_tflops=200.0, die_area_mm2=400.0, data_center="no"),
    )
    ruled = rules.check(consumer, SUBMISSION)
    assert ruled.sentence == "chip on 2024-09-18: outside 3A090, released by Note 2 to 3A090"
    assert finding(ruling("RTX 4090", SUBMISSION), "licence exceptions NAC and ACA, not").applies is Answer.YES


def test_the_h20_needs_a_licence_by_a_letter_whose_text_is_not_public():
    letters = finding(ruling("H20", LATE_2026), "letters")
    assert letters.applies is Answer.UNKNOWN and not letters.rule.text_known
    assert finding(ruling("Kunlun P800", LATE_2026), "letters").applies is Answer.NO


def test_h200_class_chips_are_reviewed_case_by_case_from_the_united_states_only():
    sold = {"sold_in_us": True}
    assert finding(ruling("H200", LATE_2026, us_export=True, **sold), "case-by-case").applies is Answer.YES
    assert finding(ruling("H200", LATE_2026, us_export=False, **sold), "case-by-case").applies is Answer.NO
    assert finding(ruling("H200", LATE_2026, us_export=True), "case-by-case").applies is Answer.UNKNOWN
    assert finding(ruling("H200", LATE_2026), "case-by-case").applies is Answer.UNKNOWN
    assert finding(ruling("B200-SXM", LATE_2026, us_export=True, **sold), "case-by-case").applies is Answer.NO


def test_a_die_area_nobody_published_leaves_the_chip_undecided():
    ruled = ruling("T-Head PPU", SUBMISSION)
    assert ruled.eccn is None
    assert ruled.sentence == (
        "T-Head PPU / Zhenwu 810E on 2024-09-18: cannot be decided; 3A090.a.2 turns on performance density"
    )


@pytest.mark.parametrize("date", [SUBMISSION, LATE_2026])
def test_inference_is_outside_control_whatever_its_die_measures(date):
    ruled = rules.check(accelerator(inference, FIGURES), date)
    assert ruled.eccn == ""
    for each in ruled.findings:
        if each.rule.kind == "control" and each.rule.text_known:
            decisive = [check for check in each.checks if check.answer is Answer.NO]
            assert any(check.condition.quantity == "total_processing_performance" for check in decisive)


def test_training_is_controlled_and_presumed():
    ruled = rules.check(accelerator(training, FIGURES), LATE_2026, {"approved_designer": True})
    assert ruled.eccn == "3A090.a"
    assert finding(ruled, "foundry").applies is Answer.YES


@pytest.mark.parametrize(
    ("described", "circumstances", "applies"),
    [
        (inference, {}, Answer.UNKNOWN),
        (inference, {"approved_designer": False, "packaged_outside": True}, Answer.YES),
        (inference, {"approved_designer": True}, Answer.NO),
        (tiny, {"packaged_outside": True}, Answer.NO),
        (tiny, {"packaged_outside": False, "approved_designer": False}, Answer.YES),
    ],
)
def test_the_foundry_presumption_turns_on_designer_packager_and_transistors(described, circumstances, applies):
    ruled = rules.check(accelerator(described, FIGURES), LATE_2026, circumstances)
    assert finding(ruled, "foundry").applies is applies


def test_rules_come_and_go_by_date():
    ids = {date: {each.rule.id for each in ruling("H100", date).findings} for date in (UNDER_2022, SUBMISSION)}
    assert "3A090 (2022)" in ids[UNDER_2022] and "3A090 (2022)" not in ids[SUBMISSION]
    assert not any(name.startswith(("foundry", "3A090.c", "case-by-case")) for name in ids[SUBMISSION])


@given(st.floats(1, 4000), st.floats(1, 4000))
def test_more_arithmetic_never_loosens_control(less, more):
    less, more = sorted((less, more))
    severity = {"": 0, "3A090.b": 1, "3A090.a": 2}
    found = [
        rules.check(chip(half_tflops=rate, die_area_mm2=700.0, data_center="yes"), SUBMISSION).eccn
        for rate in (less, more)
    ]
    assert severity[found[0]] <= severity[found[1]]


@given(st.floats(50, 2000), st.floats(50, 2000))
def test_a_larger_die_never_tightens_control(small, large):
    small, large = sorted((small, large))
    severity = {"": 0, "3A090.b": 1, "3A090.a": 2}
    found = [
        rules.check(chip(half_tflops=200.0, die_area_mm2=area, data_center="yes"), SUBMISSION).eccn
        for area in (small, large)
    ]
    assert severity[found[0]] >= severity[found[1]]


def test_a_margin_tells_what_would_put_the_chip_on_the_threshold():
    check = finding(ruling("H20", SUBMISSION), "3A090.b.2").checks[1]
    assert check.margin == pytest.approx(2368 / 814 / 3.2)
    assert check.remedy == "0.91 times the die area, or 1.10 times the arithmetic"


def test_a_range_that_straddles_a_threshold_is_not_an_answer():
    straddling = dataclasses.replace(training, clock_hz=100_000_000)  # 1,740 of performance on a modelled die
    subject = accelerator(straddling, FIGURES)
    quantities = rules.quantities(subject)
    density = quantities["performance_density"]
    low, high = density.interval()
    assert low < 2.3 < high
    check = rules._check(rules.Condition("performance_density", "at_least", 2.3), quantities, subject)
    assert check.straddles and check.answer is Answer.UNKNOWN


def test_every_rule_has_a_citation_and_dates_in_order():
    for rule in rules.rules():
        assert rule.citation and rule.confidence and rule.summary
        assert rule.ended is None or rule.effective < rule.ended
        assert rule.when or not rule.text_known or rule.kind in ("exception", "withdrawn")


@pytest.mark.parametrize(
    ("date", "circumstances", "message"),
    [
        (datetime.date(2020, 1, 1), {}, "no rule of 2020-01-01 is known; the oldest known is of 2022-10-21"),
        (
            SUBMISSION,
            {"lucky": True},
            "unknown circumstance 'lucky'; known: data_center, hbm, approved_designer, packaged_outside, sold_in_us, "
            "us_export, outside_3A090_a",
        ),
    ],
)
def test_bad_questions_are_refused(date, circumstances, message):
    with pytest.raises(SiliconError) as caught:
        ruling("H100", date, **circumstances)
    assert str(caught.value) == message


def test_the_first_sentence_carries_what_decides_in_effect():
    letters = "outside 3A090; but letters to NVIDIA, AMD and Intel (2025-04-09, press; the letters are not public): "
    assert letters in ruling("H20", datetime.date(2025, 4, 20)).sentence
    assert "letters" not in ruling("H20", datetime.date(2025, 4, 1)).sentence
    assert "letters" not in ruling("L4", datetime.date(2025, 4, 20)).sentence  # slow memory
    assert "; but the foundry presumption, Note 1 to 3A090.a, stands: " in ruling("inference", LATE_2026).sentence
    attested = ruling("inference", LATE_2026, approved_designer=True)
    assert attested.sentence == "inference on 2026-11-22: outside 3A090"
