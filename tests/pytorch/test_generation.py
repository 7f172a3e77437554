"""transformers' generate on the chip, eager and compiled, says what it says on the CPU."""

import logging

import pytest
import torch

from tapeout.pytorch import ledger

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=0,
        bos_token_id=1,
    )
    return transformers.LlamaForCausalLM(config).eval()


PROMPT = torch.tensor([[1, 5, 9, 33, 71]])
OPTIONS = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def expected(model):
    return model.generate(PROMPT, **OPTIONS)


@pytest.fixture(scope="module")
def on_chip(model, expected):
    import copy

    return copy.deepcopy(model).to("chip")


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}], ids=["growing", "static"])
def test_eager(on_chip, expected, cache):
    ledger.reset()
    assert torch.equal(on_chip.generate(PROMPT.to("chip"), **OPTIONS, **cache).cpu(), expected)
    assert ledger.snapshot().on_host == {}


def test_compiled_with_the_three_lines_of_the_readme(on_chip, expected, recwarn, monkeypatch):
    said = []
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logger.handlers[0], "handle", lambda record: said.append(record.getMessage()))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(on_chip)
    ledger.reset()
    assert torch.equal(compiled.generate(PROMPT.to("chip"), **OPTIONS).cpu(), expected)
    assert said == []
    assert not [warning for warning in recwarn if warning.category is FutureWarning]
    assert ledger.snapshot().on_host == {}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # one for all three layers
    again = compiled.generate(PROMPT[:, :3].to("chip"), **OPTIONS)
    assert again.shape == (1, 15)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_the_callers_choices_are_kept(on_chip, expected):
    compiled = torch.compile(on_chip)
    assert torch.equal(compiled.generate(PROMPT.to("chip"), **OPTIONS, use_cache=False).cpu(), expected)


def test_a_compiled_model_elsewhere_is_left_alone(model, expected):
    compiled = torch.compile(model)
    assert torch.equal(compiled.generate(PROMPT, **OPTIONS), expected)
    assert not hasattr(torch.compile(torch.nn.Linear(2, 2)), "generate")
