"""SmolLM2's decode and prefill on the chip against transformers on the CPU, same dtype, same code."""

import statistics
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import conditions, median_s
from tapeout import language_model

QUESTION = "Explain in detail how a steam engine works."
DECODE_TOKENS = 64
PREFILL_TOKENS = 512


def decode_tokens_per_s(model: language_model.LanguageModel) -> float:
    """Median of three answers, after one that fills the caches."""
    answers = [language_model.answer(model, QUESTION, max_new_tokens=DECODE_TOKENS) for _ in range(4)]
    return statistics.median(answer.tokens_per_s for answer in answers[1:])


def prefill_s(model: language_model.LanguageModel) -> float:
    ids = torch.randint(1000, 40_000, (1, PREFILL_TOKENS), generator=torch.Generator().manual_seed(0))
    ids = ids.to(model.model.device)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return model.model(input_ids=ids, logits_to_keep=1).logits.cpu()

    return median_s(run, least_runs=3)


def main() -> None:
    import tapeout  # noqa: F401  registers the device

    table = Table(title="SmolLM2-135M-Instruct, compiled on the chip, eager on the CPU")
    table.add_column("")
    for heading in ("CPU", "chip", "chip against CPU"):
        table.add_column(heading, justify="right")
    for dtype in ("float32", "bfloat16"):
        on_cpu = language_model.load(device="cpu", dtype=dtype, compiled=False)
        on_chip = language_model.load(device="chip", dtype=dtype)
        figures: list[tuple[str, Callable[[language_model.LanguageModel], float], str, bool]] = [
            (f"decode, {dtype}", decode_tokens_per_s, "{:.1f} tokens/s", True),
            (f"prefill of {PREFILL_TOKENS} tokens, {dtype}", prefill_s, "{:.2f} s", False),
        ]
        for label, measure, form, more_is_better in figures:
            cpu, chip = measure(on_cpu), measure(on_chip)
            slowdown = cpu / chip if more_is_better else chip / cpu
            table.add_row(label, form.format(cpu), form.format(chip), f"{slowdown:.1f} x slower")
    console = Console()
    console.print(table)
    console.print(conditions())


if __name__ == "__main__":
    main()
