"""Goodput: the closed form and the drawn runs agree, and published systems come out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout.figures import Provenance
from tapeout.figures import given as figure
from tapeout.training import TrainingError, goodput
from tapeout.training.goodput import Reliability, closed_form, monte_carlo

RATE = goodput.default_failures()


@given(cards=st.sampled_from([512, 4096, 16384]), restart=st.floats(60, 900), stall=st.floats(0.5, 30))
def test_short_intervals_agree_with_the_closed_form(cards, restart, stall):
    of = Reliability(cards=cards, failures_per_card_hour=RATE, restart_s=restart, checkpoint_s=300, stall_s=stall)
    assert monte_carlo(of, runs=4).mean == pytest.approx(closed_form(of).value, abs=0.015)


def test_published_systems_within_two_points():
    for each in goodput.published():
        for value in (each.closed, each.simulated.mean):
            assert value > each.reported - 0.02
            assert each.is_bound or value < each.reported + 0.02


def test_time_is_accounted_for():
    of = Reliability(cards=16384, failures_per_card_hour=RATE, spares=4, spread=0.01)
    found = monte_carlo(of, runs=10)
    assert found.mean + sum(found.lost.values()) == pytest.approx(1, abs=1e-6)
    assert found.lost["waiting for repair"] > 0
    assert monte_carlo(of, runs=10) == found


def test_more_cards_keep_less_and_young_is_best():
    kept = [closed_form(Reliability(cards=cards, failures_per_card_hour=RATE)).value for cards in (1024, 16384, 100000)]
    assert kept == sorted(kept, reverse=True)
    best = Reliability(cards=16384, failures_per_card_hour=RATE)
    for factor in (0.3, 3):
        other = Reliability(cards=16384, failures_per_card_hour=RATE, checkpoint_s=best.interval_s * factor)
        assert closed_form(other).value < closed_form(best).value


def test_cards_that_never_fail():
    of = Reliability(cards=8, failures_per_card_hour=figure("none", 0, "1/h", Provenance.ASSUMED), stall_s=0)
    assert closed_form(of).value == monte_carlo(of, days=1, runs=1).mean == 1


def test_refusals():
    with pytest.raises(TrainingError, match="0 cards; the least is 1"):
        Reliability(cards=0, failures_per_card_hour=RATE)
    with pytest.raises(TrainingError, match="checkpoints every 0 s; it is more than 0"):
        Reliability(cards=1, failures_per_card_hour=RATE, checkpoint_s=0)
