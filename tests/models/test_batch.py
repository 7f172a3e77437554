"""A server's step agrees with the same step asked for by itself, and holds what it is made of."""

import pytest

from tapeout.models import questions
from tapeout.models.batch import BatchTimer, Work
from tapeout.models.step import Step, answer, model_called


@pytest.fixture(scope="module", params=["H100", "inference"])
def timer(request):
    return questions.timers([request.param])[0]


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "gpt-oss-120b"])
def test_equal_sequences_take_what_the_step_takes(timer, model):
    shape = model_called(model)
    batches = BatchTimer(timer, shape, largest_context=8192)
    decode = answer(Step(model=shape, batch=8, context=1024), timer).seconds
    sampling = 1 + 1e-3 + 20e-6 / decode  # a pass over the logits, which the step leaves out
    assert decode < batches.time(Work([], [1024] * 8, 8)).seconds < decode * sampling
    prefill = answer(Step(model=shape, batch=1, context=2048, is_prefill=True), timer).seconds
    assert batches.time(Work([(2048, 2048)], [], 1)).seconds == pytest.approx(prefill, rel=2e-3)


def test_parts_by_bound_are_the_whole_and_more_work_takes_longer(timer):
    batches = BatchTimer(timer, model_called("llama-3.1-8b"), largest_context=8192)
    work = Work([(300, 900)], [100, 5000], 3)
    found = batches.time(work)
    assert sum(found.by_bound.values()) == pytest.approx(found.seconds)
    assert work.tokens == 302
    assert found.seconds < batches.time(Work([(400, 1000)], [100, 5000], 3)).seconds
    assert found.seconds < batches.time(Work([(300, 900)], [100, 5000] * 20, 41)).seconds


def test_pieces_of_a_prompt_together_see_each_pair_once(timer):
    batches = BatchTimer(timer, model_called("llama-3.1-8b"), largest_context=8192)
    whole = batches.time(Work([(4096, 4096)], [], 0)).seconds
    pieces = sum(batches.time(Work([(1024, end)], [], 0)).seconds for end in (1024, 2048, 3072, 4096))
    assert whole == pytest.approx(pieces, rel=0.12)
