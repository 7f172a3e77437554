"""vLLM's own scheduler in virtual time. Needs vLLM; what it says without it needs none."""

import importlib.util

import pytest

from tapeout.models import questions
from tapeout.models.step import model_called
from tapeout.serving import requirements, scheduler, simulation, traces
from tapeout.serving.objectives import Objective
from tapeout.serving.traces import Arrival

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
SERVER = simulation.Server(model=model_called("smollm2-135m"), max_batched_tokens=512, max_sequences=8)


@pytest.fixture(scope="module")
def h100():
    return questions.timers(["H100"])[0]


def test_without_vllm_the_two_commands_are_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        requirements.VllmMissing,
        match=r"Two commands in Tapeout's source folder:\n    pip install .* pip wheel .*\n    pip install",
    ):
        scheduler.engine(SERVER, 100, 100)


def test_another_release_of_vllm_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(requirements.importlib.metadata, "version", lambda name: "0.9.1+cpu")
    with pytest.raises(requirements.VllmMissing, match=r"made for vLLM 0\.33\.0; 0\.9\.1 is installed"):
        requirements.require_vllm()


def test_prompts_share_what_their_marks_say():
    first = scheduler.prompt_of(0, Arrival(0, 1200, 1, prefix=(5, 6)))
    second = scheduler.prompt_of(1, Arrival(0, 700, 1, prefix=(5, 9)))
    assert first[:512] == second[:512] and len(first) == 1200 and len(second) == 700
    assert not set(first[512:]) & set(second[512:])


def test_a_model_that_does_not_fit_is_refused(h100):
    server = simulation.Server(model=model_called("llama-3.1-70b"))
    found = simulation.answer((Arrival(0, 10, 10),), server, h100, scheduler.engine)
    assert isinstance(found, simulation.ServingError)
    assert "llama-3.1-70b in bfloat16 does not fit 1 H100" in str(found) and "--tp" in str(found)


@needs_vllm
def test_a_trace_is_served_alike_twice_with_pieces_of_prompts_and_batches(h100):
    trace = traces.at_rate(traces.called("azure-conv", count=12), 300)
    objective = Objective.of("ttft=200ms,tpot=50ms")
    first, second = (simulation.answer(trace, SERVER, h100, scheduler.engine, objective=objective) for _ in range(2))
    assert first.served == second.served and first.best == second.best
    assert [len(each.token_times_s) for each in first.served.requests] == [each.output_tokens for each in trace]
    assert max(each.sequences for each in first.served.steps) == 8
    assert max(each.tokens for each in first.served.steps) == 512  # a prompt of 879 tokens in pieces
    assert sum(each.tokens for each in first.served.steps) == sum(
        each.prompt_tokens + each.output_tokens - 1 for each in trace
    )
    assert first.best.rate_per_s > 0 and first.at_best.output_tokens == first.served.output_tokens


@needs_vllm
def test_prefixes_that_were_seen_are_not_computed_again(h100):
    trace = (
        Arrival(0, 1024, 4, prefix=(1, 2)),
        Arrival(5, 1040, 4, prefix=(1, 2)),
        Arrival(10, 1040, 4, prefix=(3, 4)),
    )
    found = simulation.answer(trace, SERVER, h100, scheduler.engine).served.requests
    assert [each.cached_tokens for each in found] == [0, 1024, 0]
    assert found[1].ttft_s < found[2].ttft_s


@needs_vllm
def test_a_small_cache_preempts():
    engine = scheduler.engine(SERVER, 20, 200)  # 19 blocks of 16 tokens beside the null block
    for index in range(3):
        engine.add(index, Arrival(0, 64, 120))
    preempted = []
    while engine.is_busy:
        preempted += engine.step().preempted
    assert preempted
