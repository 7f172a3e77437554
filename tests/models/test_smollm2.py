"""SmolLM2-135M-Instruct says on the chip what it says on the CPU.

float32: the same 64 greedy tokens for three prompts. bfloat16: given the float32 answers token by token, the
same most likely next token as often as bfloat16's own noise allows. Operator by operator and compiled.
"""

from pathlib import Path

import pytest
import torch
import torch._inductor.config

from tapeout.workbench import language_model

PROMPTS = (
    "What is the capital of France, and what is it famous for?",
    "Write a short poem about the sea.",
    "Explain how a steam engine works.",
)
TOKEN_COUNT = 64
PROSE = Path(__file__).with_name("prose.txt")
PASSAGE_LENGTH = 128
EAGER_AND_COMPILED = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


@pytest.fixture(scope="module")
def cpu_answers() -> list[language_model.Answer]:
    model = language_model.load(device="cpu", compiled=False)
    return [language_model.answer(model, prompt, max_new_tokens=TOKEN_COUNT) for prompt in PROMPTS]


@EAGER_AND_COMPILED
def test_float32_greedy_tokens_equal_the_cpus(cpu_answers, compiled):
    model = language_model.load(device="chip", dtype="float32", compiled=compiled)
    for prompt, expected in zip(PROMPTS, cpu_answers, strict=True):
        assert len(expected.token_ids) == TOKEN_COUNT
        got = language_model.answer(model, prompt, max_new_tokens=TOKEN_COUNT)
        assert got.token_ids == expected.token_ids, f"{prompt}\nCPU:  {expected.text}\nchip: {got.text}"


def test_the_forward_pass_stays_on_the_chip():
    model = language_model.load(device="chip")
    language_model.answer(model, PROMPTS[0], max_new_tokens=2)  # traces and compiles
    answer = language_model.answer(model, PROMPTS[0], max_new_tokens=4)
    assert answer.work.instructions_by_engine["matrix"] > 0
    assert not answer.work.ops_on_host


def passages(model: language_model.LanguageModel, answers) -> list[tuple[list[int], int]]:
    """Token ids and the place of the first token to be predicted: each answer after its question, and prose."""
    found = []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        question = language_model.prompt_of(model, prompt)["input_ids"][0].tolist()
        found.append((question + list(answer.token_ids), len(question)))
    prose = model.tokenizer(PROSE.read_text())["input_ids"]
    found += [(prose[at : at + PASSAGE_LENGTH], 1) for at in range(0, len(prose), PASSAGE_LENGTH)]
    return found


def teacher_forced_logits(model: language_model.LanguageModel, answers, run) -> torch.Tensor:
    """Logits [place, token] where each token of the passages is to be predicted, all passages in a row."""
    rows = []
    for ids, first in passages(model, answers):
        # One length for all, so that one compilation serves them; padding at the end changes nothing before.
        padded = ids + [model.tokenizer.pad_token_id] * (PASSAGE_LENGTH - len(ids))
        with torch.no_grad():
            logits = run(input_ids=torch.tensor([padded], device=model.model.device)).logits[0].cpu().float()
        rows.append(logits[first - 1 : len(ids) - 1])
    return torch.cat(rows)


@EAGER_AND_COMPILED
def test_bfloat16_most_likely_tokens_agree(cpu_answers, compiled):
    on_cpu = language_model.load(device="cpu", dtype="bfloat16", compiled=False)
    expected = teacher_forced_logits(on_cpu, cpu_answers, on_cpu.model)
    on_chip = language_model.load(device="chip", dtype="bfloat16", compiled=False)
    if compiled:  # the block that repeats, rounding as eager does, which is how generate compiles too
        for layer in on_chip.model.model.layers:
            layer.compile(dynamic=False)
    with torch._inductor.config.patch(emulate_precision_casts=True):
        got = teacher_forced_logits(on_chip, cpu_answers, on_chip.model)
    # bfloat16 logits tie often: the chip agrees if its choice is one of the CPU's most likely tokens.
    chosen = expected.gather(-1, got.argmax(-1, keepdim=True))[:, 0]
    agreement = (chosen == expected.max(-1).values).float().mean().item()
    strict = (got.argmax(-1) == expected.argmax(-1)).float().mean().item()
    error = (got - expected).pow(2).mean().sqrt().item() / expected.std().item()
    print(f"{len(got)} places: agreement {agreement:.2%} ({strict:.2%} without ties), logit error {error:.2%} rms")
    # Measured: 99.2 %. Other hosts' CPU kernels round in other places, and a place weighs 0.12 %.
    assert agreement >= 0.985
    assert error < 0.05  # root-mean-square, against the deviation of the CPU's logits
