"""The demo's first two tokens with warm caches, in a fresh process; the second waits for torch.compile."""

import subprocess
import sys

from rich.console import Console

from benchmarks.measure import conditions

PROGRAM = """
import time, tapeout
from tapeout import language_model
start = time.perf_counter()
model = language_model.load()
loaded = time.perf_counter()
answer = language_model.answer(model, "What is the capital of France?", max_new_tokens=2)
print(loaded - start, answer.first_token_s, answer.total_s)
"""


def main() -> None:
    for _ in range(2):  # the first run fills the caches
        done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    load_s, first_s, second_s = map(float, done.stdout.split())
    console = Console()
    console.print(f"model loaded in {load_s:.1f} s, then first token {first_s:.1f} s, second token {second_s:.1f} s")
    console.print(conditions())


if __name__ == "__main__":
    main()
