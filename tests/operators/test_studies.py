"""Studies: the verdict follows from the rows, and a turning point is where the costs meet."""

import re

import pytest

from tapeout.chip import inference
from tapeout.models import studies
from tapeout.models.studies import DECODE, LOOKUPS, PREFILL, STUDIES, study
from tapeout.models.tables import ModelError
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator
from tapeout.silicon.ownership import Site, at_price, ownership

FIGURES = technology.load()


@pytest.fixture(scope="module")
def found():
    return {name: study(name, FIGURES) for name in STUDIES}


@pytest.mark.parametrize("name", STUDIES)
def test_units_a_dollar_are_rates_over_costs(found, name):
    rows = found[name].rows
    assert {row.workload for row in rows} == {DECODE, PREFILL, LOOKUPS}
    for row in rows:
        if row.usd is None:
            assert row.why and row.rate is None and row.times is None
            continue
        reference = found[name].of(found[name].reference, row.workload)
        assert row.rate.value > 0
        assert row.times.value == pytest.approx(reference.usd.value / row.usd.value)


def test_the_verdict_on_memory_is_that_of_the_rows(found):
    costs = {row.chip: row.usd.value for row in found["drop-hbm"].rows if row.workload == DECODE}
    keep = costs["inference"] == min(costs.values())
    assert found["drop-hbm"].verdict.startswith("Keep HBM" if keep else "Drop HBM")
    factor = float(re.search(r"([0-9.]+) times its price", found["drop-hbm"].changes[0])[1])
    dear = FIGURES.replacing({"dram_price.HBM3e": FIGURES["dram_price.HBM3e"] * factor})
    hourly = ownership(accelerator(inference, dear), Site(), dear).per_hour
    rate = found["drop-hbm"].of("inference", DECODE).rate
    cheap = min(cost for chip, cost in costs.items() if chip != "inference")
    assert (hourly / rate).to("USD").value * 1e6 == pytest.approx(cheap, rel=0.02)


def test_at_the_price_named_the_bought_chip_draws_level(found):
    name = found["h20"].reference
    level = found["h20"].of("inference", DECODE).usd.value

    def at(price):
        hourly = ownership(at_price(accelerator("H20", FIGURES), price), Site(), FIGURES).per_hour
        return (hourly / found["h20"].of(name, DECODE).rate).to("USD").value * 1e6

    named = re.search(r"At ([0-9,]+) USD", found["h20"].changes[0])
    if named:
        assert at(float(named[1].replace(",", ""))) == pytest.approx(level, rel=0.01)
    else:
        assert (at(0) - level) * (at(200_000) - level) > 0


def test_four_times_holds_only_if_every_workload_says_so(found):
    times = [row.times.value for row in found["four-times"].rows if row.chip == "inference"]
    assert ("It is:" in found["four-times"].verdict) == all(each >= 4 for each in times)


def test_a_model_that_does_not_fit_has_no_cost():
    small = studies.with_memory(inference, "small", "GDDR6", 4, 2, 64)
    with pytest.raises(ModelError, match=r"^weights and cache take 19 GiB of 8 GiB$"):
        studies._rate(accelerator(small, FIGURES), studies._step(8, 4096))


def test_an_unknown_study_is_named_beside_those_there_are():
    with pytest.raises(ModelError) as caught:
        study("four", FIGURES)
    assert str(caught.value) == ("unknown study 'four'; known: drop-hbm, four-times, h20, 4090-or-inference-card")
