"""Laws of the cost of owning, published costs as a check, and the study of a claim."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.chip import catalog, inference, tiny, training
from tapeout.estimate import Provenance, number
from tapeout.estimate import given as figure
from tapeout.silicon import comparison, ownership, study, technology
from tapeout.silicon.ownership import Fleet, Owned
from tapeout.silicon.technology import SiliconError
from tapeout.workbench.script import RunTime

FIGURES = technology.load()
CHIPS = catalog.shipped()
H100 = catalog.find("H100", CHIPS)
H20 = catalog.find("H20", CHIPS)


def hourly(price, watts, fleet=Fleet(), figures=FIGURES):  # noqa: B008 (a fleet is frozen)
    chip = Owned(name="chip", price=number(price, "USD"), tdp=number(watts, "W"))
    return ownership.ownership(chip, fleet, figures).per_hour.value


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(10, 2000), st.floats(10, 2000))
def test_a_dearer_or_hotter_chip_never_costs_less(cheap, dear, cool, hot):
    cheap, dear = sorted((cheap, dear))
    cool, hot = sorted((cool, hot))
    assert hourly(cheap, cool) <= hourly(dear, cool) <= hourly(dear, hot)


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_the_share_of_the_network_never_falls_with_scale(small, large):
    small, large = sorted((small, large))
    assert hourly(10_000, 500, Fleet(chip_count=small)) <= hourly(10_000, 500, Fleet(chip_count=large))


def test_power_is_a_function_of_site_and_origin():
    costs = {
        (site, origin): hourly(10_000, 500, Fleet(site=site, origin=origin))
        for site in ownership.SITES
        for origin in ownership.ORIGINS
    }
    assert costs["us", "domestic"] == costs["us", "foreign"]
    assert costs["china-west", "domestic"] < costs["us", "foreign"] < costs["china-west", "foreign"]
    assert costs["china-west", "foreign"] < costs["china-coast", "foreign"]


@pytest.mark.parametrize("name", ["H100", "MI300X"])
def test_published_costs_lie_near_the_model(name):
    """SemiAnalysis's hyperscaler and neocloud: ours is a neocloud without its discounts, so up to a tenth above."""
    chip = catalog.find(name, CHIPS)
    modelled = ownership.ownership(ownership.owned(chip, FIGURES), Fleet(), FIGURES).per_hour
    low, high = modelled.interval()
    assert low <= chip.figure("neocloud_usd_per_h") <= high
    assert chip.figure("hyperscaler_usd_per_h") < modelled.value < 1.1 * chip.figure("neocloud_usd_per_h")


@pytest.mark.parametrize("name", ["H100", "B200-SXM", "MI300X", "MI355X"])
def test_all_in_power_follows_the_published_line(name):
    chip = catalog.find(name, CHIPS)
    bought = Owned(name=name, price=number(1, "USD"), tdp=number(chip.figure("tdp_w"), "W"))
    modelled = ownership.ownership(bought, Fleet(), FIGURES).all_in.to("kW").value
    assert modelled == pytest.approx(chip.figure("all_in_kw"), rel=0.05)


def test_the_parts_of_an_hour_add_up_and_useful_hours_cost_more():
    costs = ownership.ownership(ownership.owned(inference, FIGURES), Fleet(), FIGURES)
    assert sum(part.value for part in costs.per_hour.parts) == pytest.approx(costs.per_hour.value)
    assert costs.per_useful_hour.value == pytest.approx(costs.per_hour.value / 0.7 / 0.9)


def test_work_is_priced_by_throughput():
    costs = ownership.ownership(ownership.owned(H100, FIGURES), Fleet(), FIGURES)
    tokens = ownership.cost_of_work(costs, 1000, "token")
    assert tokens.value == pytest.approx(costs.per_useful_hour.value / 3.6)
    assert tokens.name == "cost of a million tokens" and str(tokens.unit) == "USD"
    recommendations = ownership.cost_of_work(costs, 1000, "recommendation")
    assert recommendations.value == pytest.approx(1000 * tokens.value)
    run = ownership.cost_of_training(costs, 3600 * 1e15, 1e15, 0.5)
    assert run.value == pytest.approx(2 * costs.per_hour.value / 0.9)


@given(st.floats(0.1, 5), st.floats(0.1, 5))
def test_the_more_chips_stand_for_one_the_later_they_pay(few, many):
    few, many = sorted((few, many))
    own = ownership.ownership(ownership.owned(inference, FIGURES, with_development=False), Fleet(), FIGURES)
    bought = ownership.ownership(ownership.owned(H100, FIGURES), Fleet(), FIGURES)
    development = FIGURES["development_cost.N5"]
    sooner, later = (
        ownership.break_even(own, bought, development, chips_each=each, technology=FIGURES) for each in (few, many)
    )
    assert sooner.saving.value >= later.saving.value and sooner.chance >= later.chance
    if later.volume is not None:
        assert sooner.volume <= later.volume
    else:
        assert later.saving.value <= 0


def test_break_even_pays_back_exactly_the_development():
    _, result = ownership.against(inference, H20, Fleet(), FIGURES, by="memory_gb_per_s")
    assert result.chips_each == pytest.approx(4000 / 4800)
    assert result.volume * result.saving.value == pytest.approx(result.development.to("USD").value)


def test_the_claim_does_not_hold_for_compute_and_says_so():
    found = study.four_times_h100(inference, Fleet(), FIGURES, volume=100_000)
    claims = {claim.metric: claim for claim in found.claims}
    assert claims["half_tflops"].verdict == "cannot hold"
    assert not any(each.possible for each in found.capped)
    # 4 x 1979 TFLOP/s of float8 from chips of 600 or 300
    assert [round(each.chips_for_claim, 1) for each in found.capped] == [39.6, 26.4, 13.2]


def test_the_claim_holds_where_a_chip_is_four_times_an_h100():
    cheap = dataclasses.replace(H100, name="gift")
    facts = dict(H100.facts) | {
        "half_tflops": catalog.Fact(10 * 989.4, "datasheet", "test"),
        "float8_tflops": catalog.Fact(4 * 1979.0, "datasheet", "test"),
    }
    cheap = dataclasses.replace(cheap, facts=facts)
    found = study.four_times_h100(cheap, Fleet(), FIGURES, volume=1)
    verdicts = {claim.metric: claim.verdict for claim in found.claims}
    assert verdicts["half_tflops"] == "holds"
    assert verdicts["float8_tflops"] == "within the uncertainty"
    assert verdicts["memory_gb"] in ("does not hold", "cannot hold")


def test_the_claim_holds_in_some_measured_serving_and_not_in_other():
    found = study.four_times_h100(inference, Fleet(), FIGURES, volume=100_000)
    verdicts = {(each.chip, "100 tokens" in each.workload): each.verdict for each in found.served}
    assert verdicts["B200-SXM", False] == verdicts["B200-SXM", True] == "holds"
    assert verdicts["MI355X", False] == verdicts["H200-SXM-141GB", False] == "does not hold"


def test_an_h100_is_one_h100_a_dollar():
    found = study.four_times_h100(H100, Fleet(), FIGURES, volume=1)
    for claim in found.claims:
        assert claim.ratio.value == pytest.approx(1)
        assert claim.ratio.interval() == pytest.approx((1, 1))


def test_a_comparison_is_as_sure_as_its_weaker_figure_and_blank_where_nothing_is_known():
    rows = [comparison.catalogued(inference, FIGURES), H20, catalog.find("Kunlun P800", CHIPS)]
    lines = {(line.group, line.label): line.facts for line in comparison.compare(rows)}
    per_area = lines["per mm²", "memory bandwidth"]
    assert [fact and fact.confidence for fact in per_area] == ["modelled", "recalled", None]
    assert per_area[1].value == pytest.approx(1000 * 4000 / 814)
    assert lines["raw", "price"][2] is None
    assert lines["raw", "memory"][0].confidence == "design"


def test_a_described_chip_without_a_price_is_compared_without():
    row = comparison.catalogued(tiny, FIGURES)
    assert row.figure("price_usd") is None
    assert row.text("price_note").startswith("not known: dram_price.LPDDR5 is not known")


def simulated(**changes):
    facts = {"chip": "inference", "total_ps": 2_000_000_000, "status": 0, "timing_only": False}
    empty = {name: {} for name in ("busy_ps", "counts", "host_operators", "untimed_kernels", "assumptions")}
    return RunTime(**(facts | empty | changes))


def test_a_simulated_run_has_a_throughput():
    assert ownership.throughput_of_run(simulated(), 5, "inference") == pytest.approx(2500)


@pytest.mark.parametrize(
    ("run", "items", "message"),
    [
        (simulated(chip="training"), 5, "the run was on the chip training, not inference"),
        (
            simulated(host_operators={"aten::sort": 3}),
            5,
            "the run's time leaves out aten::sort, so it has no throughput",
        ),
        (simulated(), 0, "0 items in 0.002 s are no throughput"),
    ],
)
def test_a_run_that_has_no_throughput_is_refused(run, items, message):
    with pytest.raises(SiliconError) as caught:
        ownership.throughput_of_run(run, items, "inference")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: ownership.owned(catalog.find("B200-SXM", CHIPS), FIGURES),
            "B200-SXM has no price_usd in the catalog; add it in a table of your own",
        ),
        (lambda: Fleet(site="mars"), "unknown site 'mars'; known: us, china-west, china-coast"),
        (lambda: Fleet(origin="martian"), "unknown origin 'martian'; known: domestic, foreign"),
        (lambda: Fleet(chip_count=0), "a fleet of 0 chips; the least is 1"),
        (
            lambda: ownership.against(H100, H20, Fleet(), FIGURES, by="memory_gb"),
            "H100-SXM5-80GB is bought, not developed: break-even is for a described chip",
        ),
        (
            lambda: ownership.against(training, H20, Fleet(), FIGURES, by="float4_tflops"),
            "training has no figure 'float4_tflops' to count it by; see `tapeout chips 'training'`",
        ),
        (lambda: comparison.compare([]), "name at least one chip to compare"),
    ],
)
def test_questions_without_an_answer_are_refused(ask, message):
    with pytest.raises(SiliconError) as caught:
        ask()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("price", "message"),
    [
        (lambda costs: ownership.cost_of_work(costs, 0, "token"), "a throughput of 0 tokens a second is not positive"),
        (
            lambda costs: ownership.cost_of_work(costs, 1, "joke"),
            "unknown work 'joke'; known: token, recommendation, sample",
        ),
        (
            lambda costs: ownership.cost_of_training(costs, 1e24, 0, 0.4),
            "a run of 1e+24 operations at 0/s cannot be priced",
        ),
        (
            lambda costs: ownership.cost_of_training(costs, 1e24, 1e15, 1.5),
            "utilisation 1.5 of peak is not between 0 and 1",
        ),
    ],
)
def test_work_without_a_price_is_refused(price, message):
    costs = ownership.ownership(ownership.owned(H100, FIGURES), Fleet(), FIGURES)
    with pytest.raises(SiliconError) as caught:
        price(costs)
    assert str(caught.value) == message


def test_a_figure_of_ones_own_moves_the_result():
    free_power = FIGURES.replacing({"power_price.us": figure("power_price.us", 0, "USD/kWh", Provenance.MEASURED)})
    assert hourly(10_000, 500, figures=free_power) < hourly(10_000, 500)
