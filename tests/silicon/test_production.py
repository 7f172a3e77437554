"""Production plans: nothing is lost between quarters, caps hold, and what is scarce is named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.chip import inference, tiny, training
from tapeout.silicon import technology
from tapeout.silicon.area import die_area
from tapeout.silicon.die import of_chip
from tapeout.silicon.manufacturing import manufacture
from tapeout.silicon.production import Quarter, produce
from tapeout.silicon.technology import SiliconError

FIGURES = technology.load()
START = Quarter(2026, 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 10**7), st.integers(1, 12), st.none() | st.floats(50, 1e6))
def test_every_chip_is_delivered_once_and_every_dollar_belongs_to_a_quarter(count, quarters, allotted):
    plan = produce(
        inference, count, FIGURES, start=START, quarter_count=quarters, wafers_per_month=max(allotted or 0, count / 2e3)
    )
    assert sum(each.delivered for each in plan.quarters) == pytest.approx(count)
    assert plan.quarters[-1].delivered_so_far == pytest.approx(count)
    assert sum(each.wafers_started.value for each in plan.quarters) == pytest.approx(plan.needs[0].value)
    assert sum(each.cash.value for each in plan.quarters) == pytest.approx(plan.cost.value)
    assert plan.quarters[-1].quarter == plan.last and plan.delivered_by(plan.last) == pytest.approx(count)
    assert plan.earliest <= plan.first <= plan.latest and plan.first <= plan.last


def test_the_cash_is_the_price_without_development_of_what_is_made():
    plan = produce(inference, 100_000, FIGURES, start=START)
    die = of_chip(inference)
    made = manufacture(die, die_area(die, FIGURES), FIGURES, volume=100_000)
    lost = 1 / (FIGURES["package_yield"].value * FIGURES["test_yield"].value)
    margin = made.price.parts[1].value
    assert plan.cost.to("USD").value == pytest.approx(100_000 * (made.cost.value * lost + margin))


def test_a_cap_stretches_the_plan_and_holds():
    free = produce(training, 200_000, FIGURES, start=START, quarter_count=4)
    capped = produce(training, 200_000, FIGURES, start=START, quarter_count=4, interposers_per_month=300)
    assert capped.last > free.last
    interposers = next(each for each in capped.scarce if each.what == "interposer wafers")
    assert interposers.needed.value == pytest.approx(300)


def test_the_plan_that_ends_in_a_quarter_has_all_chips_by_then_and_not_before():
    asked = Quarter(2027, 4)
    plan = produce(inference, 350_000, FIGURES, by=asked)
    assert plan.delivered_by(asked) == pytest.approx(350_000)
    assert plan.last <= asked and asked.year * 4 + asked.number - (plan.last.year * 4 + plan.last.number) <= 1


def test_what_is_scarce_comes_first_and_a_chip_without_stacks_takes_no_interposer():
    plan = produce(inference, 350_000, FIGURES, start=START)
    assert [each.what for each in plan.scarce] == ["HBM", "interposer wafers", "N5 wafers"]
    shares = [each.share.value for each in plan.scarce]
    assert shares == sorted(shares, reverse=True) and shares[0] < 0.05
    small = produce(tiny, 1000, FIGURES, start=START)
    assert small.scarce == () and small.unknown == ("N7 wafers: no [world.wafer.N7] in the technology file",)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Quarter.parse("2026-3"), "'2026-3' is not a quarter; 2026Q3 is"),
        (lambda: produce(inference, 0, FIGURES, start=START), "0 chips in 4 quarters; the least of each is 1"),
        (
            lambda: produce(inference, 9, FIGURES),
            "give either the quarter of the first wafers or the quarter of the last chips",
        ),
        (
            lambda: produce(inference, 9, FIGURES, start=START, wafers_per_month=-1),
            "-1 wafers a month is not positive",
        ),
        (
            lambda: produce(inference, 10**7, FIGURES, start=START, wafers_per_month=1),
            "what is allotted a month makes 0% of the chips in 20 years; ask for fewer chips or a larger allotment",
        ),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(ask, message):
    with pytest.raises(SiliconError) as caught:
        ask()
    assert str(caught.value) == message


def test_quarters_count_on():
    assert str(Quarter(2026, 3).after(0)) == "2026Q3" and str(Quarter(2026, 3).after(5)) == "2026Q4"
    assert Quarter(2026, 3).after(6) == Quarter(2027, 1) and Quarter(2026, 1).after(-1) == Quarter(2025, 4)
    assert Quarter.parse("2027q2") == Quarter(2027, 2)
