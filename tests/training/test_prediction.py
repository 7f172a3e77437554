"""Laws of a predicted step, and what is refused."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.training import Mesh, Pipeline, Plan, TrainingError, fleet_of, layers, model_of, predict, uniform

MODEL = model_of("llama-3.1-8b")
FLEET = fleet_of("H100:512")
MIXED = fleet_of("H100:256,training:256")


def step(cards, **how):
    return predict(MODEL, FLEET, uniform("H100", cards=cards, sequence=4096, **how))


@settings(max_examples=10)
@given(
    tp=st.sampled_from([1, 2, 4]),
    pp=st.sampled_from([1, 2, 4]),
    micro=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "full"]),
)
def test_more_cards_are_never_slower(tp, pp, micro, recompute):
    """At a fixed shape of the replica and a fixed batch."""
    times = [
        step(cards, tp=tp, pp=pp, micro_batch=micro, batch=512, recompute=recompute).seconds for cards in (32, 128)
    ]
    assert times[1] <= times[0]


@settings(max_examples=10)
@given(tp=st.sampled_from([1, 4]), pp=st.sampled_from([1, 4]), batch=st.sampled_from([128, 512]))
def test_no_step_beats_the_peak(tp, pp, batch):
    found = step(64, tp=tp, pp=pp, batch=batch)
    assert 0 < found.mfu.value < 1
    assert found.seconds == pytest.approx(sum(part.value for part in found.time.parts))
    low, high = found.time.interval()
    assert low <= found.seconds <= high


def test_one_kind_named_twice_is_the_mixed_path():
    """Two meshes of the same kind, and one: the same step."""
    half = Mesh(kind="H100", stages=2, tp=2)
    one = Mesh(kind="H100", stages=4, tp=2)
    plans = [
        Plan(pipelines=(Pipeline(meshes=meshes, replicas=8, batch=128),), sequence=4096)
        for meshes in ((one,), (half, half))
    ]
    assert predict(MODEL, FLEET, plans[0]).seconds == predict(MODEL, FLEET, plans[1]).seconds


def test_the_slower_kind_sets_the_pace():
    def mixed(layers):
        meshes = tuple(
            Mesh(kind=kind, layers=(count,)) for kind, count in zip(("training", "H100"), layers, strict=True)
        )
        plan = Plan(pipelines=(Pipeline(meshes=meshes, replicas=4, batch=128),), sequence=4096)
        return predict(MODEL, MIXED, plan).seconds

    assert mixed((18, 14)) < mixed((16, 16)) < mixed((10, 22))


def refused(**how):
    with pytest.raises(TrainingError) as caught:
        step(**how)
    return str(caught.value)


def test_refusals_name_what_would_do():
    assert refused(cards=64, batch=100) == (
        "a batch of 100 does not divide over 64 replicas and micro-batches of 1; 64 or 128 does"
    )
    assert refused(cards=64, pp=64, batch=64) == ("64 stages for the 32 layers of llama-3.1-8b; use at most 32 stages")
    assert refused(cards=63, tp=8, batch=64) == (
        "63 cards do not divide into replicas of tp 8 x pp 1 x cp 1 = 8; 56 do"
    )
    assert refused(cards=1024, batch=1024) == "the plan takes 1024 H100, the fleet has 512"
    assert refused(cards=8, ep=8, batch=8) == "llama-3.1-8b has no experts, so ep must be 1, not 8"
    with pytest.raises(TrainingError, match="cards are written kind:count"):
        fleet_of("H100")


def test_a_token_goes_to_a_node_once_where_the_software_does_so():
    """Experts over eight nodes: fewer bytes on the network; inside one node there is nothing to save."""
    model = model_of("qwen3-235b-a22b")

    def exchange(software, ep):
        fleet = fleet_of("H100:64", software=software)
        step = predict(model, fleet, uniform("H100", cards=64, batch=64, sequence=4096, ep=ep))
        part = next(each for each in step.time.parts if each.name == "expert parallel")
        return part.value / layers.exchange_share(fleet["H100"].software.overlap.value)

    assert exchange("megatron-2025", 64) < exchange("megatron-2024", 64)
    assert exchange("megatron-2025", 8) == pytest.approx(exchange("megatron-2024", 8))


def test_unaligned_widths_take_longer():
    """Of two models that differ in a width that no multiplier's tile divides."""

    def seconds(width):
        model = replace(MODEL, intermediate=width)
        return predict(model, FLEET, uniform("H100", cards=8, sequence=4096, batch=8)).seconds

    assert seconds(14336 + 8) > 1.05 * seconds(14336)
    assert seconds(14336 + 64) < 1.02 * seconds(14336)


def test_a_tied_model_holds_its_embedding_once():
    def memory(tied, pp):
        plan = uniform("H100", cards=8, sequence=4096, batch=8, pp=pp, zero=0)
        return predict(replace(MODEL, tied=tied), FLEET, plan).stages[0][0].memory.value

    shared = MODEL.vocabulary * MODEL.hidden * (2 + 4 + 12)
    assert memory(False, 1) - memory(True, 1) == pytest.approx(shared)
    assert memory(False, 2) == memory(True, 2)
