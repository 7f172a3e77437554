"""Cold compilation of a kernel of about 200 TTIR operations, from Python to machine code, without caches."""

import statistics
import subprocess
import sys

import triton
import triton.language as tl
from rich.console import Console

from benchmarks.measure import conditions

RUNS = 5

# Each run is a process of its own and a kernel no cache has seen: its constant is new. The first launch
# compiles, the second shows what a launch costs without. A kernel before it pays the process's start.
PROGRAM = """
import time, torch, triton, triton.language as tl, tapeout
from benchmarks import kernels
from benchmarks.compile_time import chain_kernel

values = torch.ones(10 * 1024, device="chip")
kernels.add(values, values)
out = torch.empty(1024, device="chip")

new = float(time.time_ns() % 1_000_003)

def launch():
    chain_kernel[(1,)](values, out, values.numel(), BLOCK=1024, NEW=new)
    torch.chip.synchronize()

start = time.perf_counter(); launch(); first = time.perf_counter() - start
start = time.perf_counter(); launch(); again = time.perf_counter() - start
compiled = chain_kernel.device_caches[0][0].popitem()[1]
operations = sum(" = " in line for line in compiled.asm["ttir"].splitlines())
print(operations, first - again)
"""


@triton.jit
def chain_kernel(source, out, length, BLOCK: tl.constexpr, NEW: tl.constexpr):
    """Ten rounds of a load, arithmetic, a comparison, a special function and a reduction."""
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for step in tl.static_range(10):
        place = step * BLOCK + offsets
        value = tl.load(source + place, mask=place < length, other=0.0)
        scaled = value * (step + 1.5) - total
        wave = tl.exp(scaled - tl.max(scaled, axis=0))
        total += tl.where(wave > 0.5, wave, scaled)
    tl.store(out + offsets, total + NEW)


def main() -> None:
    seconds = []
    operations = 0
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
        count, elapsed = done.stdout.split()
        operations = int(count)
        seconds.append(float(elapsed))
    console = Console()
    console.print(f"cold compilation of {operations} TTIR operations: {statistics.median(seconds):.2f} s")
    console.print(conditions())


if __name__ == "__main__":
    main()
