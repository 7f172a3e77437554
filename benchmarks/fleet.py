"""Assignment of 300 workloads to eight kinds of cards: seconds for the columns and the search, and the gap."""

import time

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measure import conditions
from tapeout.fleet import Fleet, Kind, Place, placing
from tapeout.fleet.description import Rank, Serve, Train, Workload

WORKLOADS = 300
CHIPS = ("H100", "H200", "H20", "L20", "MI300X", "Ascend 910B3", "training", "inference")
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "qwen3-32b", "gpt-oss-120b", "qwen3-30b-a3b")


def fleet(seed: int = 0) -> Fleet:
    """Random work, three fifths of it serving, on enough cards of each kind that none is left without use."""
    random = np.random.default_rng(seed)
    kinds = tuple(
        Kind(name=chip, count=4096, usd_per_h=float(random.uniform(0.5, 3)), power_kw=1.2, site=site)
        for chip, site in zip(CHIPS, ("desert", "coast") * 4, strict=True)
    )
    workloads: list[Workload] = []
    for number in range(WORKLOADS):
        name, share = f"work {number}", random.random()
        if share < 0.6:
            workloads.append(
                Serve(
                    name=name,
                    model=str(random.choice(MODELS)),
                    requests_per_s=float(random.lognormal(2, 1)),
                    input_tokens=int(random.integers(100, 4000)),
                    output_tokens=int(random.integers(20, 800)),
                    ttft_ms=float(random.uniform(300, 3000)),
                    tpot_ms=float(random.uniform(20, 80)),
                )
            )
        elif share < 0.75:
            rate = float(random.lognormal(10, 1))
            workloads.append(Rank(name=name, model="dlrm", queries_per_s=rate, p99_ms=float(random.uniform(2, 20))))
        else:
            tokens = float(random.lognormal(25, 1))
            model = str(random.choice(MODELS[:4]))
            workloads.append(Train(name=name, model=model, tokens=tokens, deadline_days=float(random.uniform(7, 60))))
    sites = (Place(name="desert", power_kw=20_000), Place(name="coast", usd_per_kwh=0.11))
    return Fleet(sites=sites, kinds=kinds, workloads=tuple(workloads))


def main() -> None:
    started, used = time.perf_counter(), time.process_time()
    found = placing.plan(fleet())
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    table = Table("300 workloads, 8 kinds", "figure", "bar")
    table.add_row("columns", f"{found.column_count:,}", "")
    table.add_row("wall", f"{wall:.1f} s", "10 s")
    table.add_row("CPU", f"{cpu:.1f} s", "")
    table.add_row("of it the search", f"{found.seconds:.1f} s", "")
    table.add_row("gap to the bound", f"{found.gap:.2%}", "1 %")
    console = Console()
    console.print(table)
    console.print(conditions())


if __name__ == "__main__":
    main()
