"""Laws of figures: units, provenance, sampling, sensitivities."""

import math

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from tapeout.figures import EstimateError, Provenance, Unit, computed, given, number, total

LENGTHS = st.sampled_from(["m", "mm", "cm", "µm"])
AREAS = st.sampled_from(["m²", "mm²", "cm²", "µm²"])
VALUES = st.floats(1e-6, 1e6)


@for_all(VALUES, AREAS, AREAS)
def test_converting_there_and_back_changes_nothing(value, here, there):
    assert number(value, here).to(there).to(here).value == pytest.approx(value, rel=1e-12)


@for_all(VALUES, VALUES, LENGTHS, LENGTHS)
def test_a_product_of_lengths_is_an_area_whatever_the_units(a, b, one, other):
    product = number(a, one) * number(b, other)
    expected = number(a, one).to("m").value * number(b, other).to("m").value
    assert product.to("m²").value == pytest.approx(expected, rel=1e-12)


@for_all(VALUES, VALUES, AREAS, AREAS)
def test_a_sum_takes_its_first_unit_and_does_not_depend_on_the_order(a, b, one, other):
    forward, backward = number(a, one) + number(b, other), number(b, other) + number(a, one)
    assert str(forward.unit) == one
    assert forward.to("m²").value == pytest.approx(backward.to("m²").value, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (1, "kWh", "J", 3.6e6),
        (3.9, "pJ/bit", "pJ/B", 31.2),
        (1, "USD/token", "USD/Mtoken", 1e6),
        (1, "MiB", "bit", 8 * 2**20),
        (0.1, "1/cm²", "1/mm²", 0.001),
        (91.2, "Mtransistor/mm²", "Gtransistor/mm²", 0.0912),
        (1, "year", "h", 8766),
    ],
)
def test_known_conversions(value, unit, wanted, expected):
    assert number(value, unit).to(wanted).value == pytest.approx(expected)


def test_what_measures_different_things_does_not_add_up():
    with pytest.raises(EstimateError) as caught:
        number(1, "W") + number(1, "USD")
    assert str(caught.value) == "USD does not convert to W"


def test_a_unit_nobody_can_read_is_refused():
    with pytest.raises(EstimateError) as caught:
        Unit.parse("USD per wafer")
    assert str(caught.value) == "'USD per wafer' is not a unit; write it like 'USD/wafer', 'pJ/bit' or 'mm²'"


@pytest.mark.parametrize("text", ["", "USD/wafer", "1/cm²", "mm²·s/GB", "pJ/bit"])
def test_units_print_as_they_are_read(text):
    assert Unit.parse(str(Unit.parse(text))) == Unit.parse(text)


@for_all(st.sampled_from(list(Provenance)), st.sampled_from(list(Provenance)))
def test_a_result_wears_its_weakest_tag(one, other):
    result = given("a", 1, "W", one) * given("b", 2, "", other)
    assert result.provenance == max(one, other)


@for_all(VALUES, st.floats(0.1, 1), st.floats(1, 10))
def test_samples_stay_within_the_range_and_the_interval_within_them(value, below, above):
    figure = given("figure", value, "W", Provenance.ASSUMED, low=value * below, high=value * above)
    low, high = figure.interval(seed=1, count=200)
    assert value * below <= low <= high <= value * above
    assert (low, high) == figure.interval(seed=1, count=200)


def test_one_input_used_twice_is_drawn_once():
    figure = given("figure", 2, "W", Provenance.ASSUMED, low=1, high=3)
    assert (figure / figure).interval() == (1, 1)
    assert (figure - figure).interval() == (0, 0)


def test_draws_do_not_depend_on_what_else_is_sampled():
    alone = given("a", 2, "W", Provenance.ASSUMED, low=1, high=3)
    beside = total("both", [alone, given("b", 5, "W", Provenance.ASSUMED, low=4, high=6)])
    rest = beside.samples(seed=3) - beside.parts[1].samples(seed=3)
    assert rest == pytest.approx(alone.samples(seed=3))


def test_another_seed_is_another_answer():
    figure = given("figure", 2, "W", Provenance.ASSUMED, low=1, high=3)
    assert figure.interval(seed=0) != figure.interval(seed=1)


def test_sensitivities_move_one_input_at_a_time_widest_first():
    a = given("a", 2, "", Provenance.ASSUMED, low=1, high=4)
    b = given("b", 10, "", Provenance.ASSUMED, low=9, high=10)
    exact = given("exact", 3, "", Provenance.PUBLISHED)
    found = (a * b * exact).sensitivities()
    assert [(each.varied.name, each.at_low, each.at_high) for each in found] == [("a", 30, 120), ("b", 54, 60)]


def test_parts_add_up_and_keep_their_names():
    whole = total("whole", [number(1, "W").called("one"), number(500, "mW").called("two")])
    assert whole.value == pytest.approx(1.5)
    assert [part.name for part in whole.parts] == ["one", "two"]


def test_any_formula_is_sampled_like_arithmetic():
    a = given("a", 4, "", Provenance.MODELLED, low=1, high=9)
    root = computed("", lambda value: value**0.5, a)
    low, high = root.interval(level=1.0)
    assert root.value == 2 and 1 <= low < high <= 3


@pytest.mark.parametrize(
    ("low", "value", "high", "message"),
    [
        (3, 2, 4, "price=2 is outside its own range, 3 to 4"),
        (1, 2, 1.5, "price=2 is outside its own range, 1 to 1.5"),
        (1, math.inf, None, "price: inf (from 1 to inf) is not a finite number"),
    ],
)
def test_contradictory_figures_are_refused(low, value, high, message):
    with pytest.raises(EstimateError) as caught:
        given("price", value, "USD", Provenance.ASSUMED, low=low, high=high)
    assert str(caught.value) == message
