"""Cost of keeping time: SmolLM2's decode with the clock on and off, and a Llama-3-70B step timed on this host."""

import re
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measure import conditions, timed_cold

ROOT = Path(__file__).parents[1]
LLAMA = ROOT / "examples" / "llama_70b_decode.py"
QUESTION = "Explain in detail how a steam engine works."
DECODE_TOKENS = 32
ANSWERS = 5


def decode_rates() -> tuple[list[float], list[float]]:
    """Tokens a second with the clock off and on, in turns, after one answer each that fills the caches."""
    from tapeout import language_model
    from tapeout.runtime import session

    model = language_model.load(dtype="float32")
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(ANSWERS + 1):
        for timed, found in enumerate(rates):
            if timed:
                session.turn_on()
            answer = language_model.answer(model, QUESTION, max_new_tokens=DECODE_TOKENS)
            session.turn_off()
            assert answer.tokens_per_s is not None
            found.append(answer.tokens_per_s)
    return rates[0][1:], rates[1][1:]


def main() -> None:
    console = Console()
    table = Table("", "measured", "aim", title="Cost of virtual time")
    elapsed_s, memory_gib, printed = timed_cold(str(LLAMA), "training")
    step = re.search(r"decode step: (.*)", printed)
    assert step is not None, printed
    table.add_row("Llama-3-70B decode step on `training`, timed cold", f"{elapsed_s:.1f} s", "60 s")
    table.add_row("  host memory", f"{memory_gib:.2f} GiB", "4 GiB")
    table.add_row("  the chip's time", step[1], "")
    off, on = decode_rates()
    slowdown = statistics.median(without / with_clock - 1 for without, with_clock in zip(off, on, strict=True))
    table.add_row("SmolLM2 decode, clock off", f"{statistics.median(off):.1f} tokens/s", "")
    table.add_row("SmolLM2 decode, clock on", f"{statistics.median(on):.1f} tokens/s", "")
    table.add_row("  slower by, the median of pairs", f"{slowdown:.0%}", "50 %")
    console.print(table)
    console.print(conditions())


if __name__ == "__main__":
    main()
