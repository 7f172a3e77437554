"""Planning of a 405B model on 10,240 cards of six kinds: seconds, plans simulated, and the distance from the bound."""

import time

from rich.console import Console
from rich.table import Table

from benchmarks.measure import conditions
from tapeout.planning import Question, plan
from tapeout.training import fleet_of, model_of

CARDS = "training:2048,H100:4096,Ascend 910B3:2048,MI300X:512,H20:512,A100-SXM4-80GB:1024"


def main() -> None:
    question = Question(model=model_of("llama-3.1-405b"), fleet=fleet_of(CARDS, assume=True), batch=2048, sequence=8192)
    console = Console()
    table = Table("405B on 10,240 cards of 6 kinds", "first", "again", "bar")
    runs = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        found = plan(question)
        runs.append((time.perf_counter() - wall, time.process_time() - cpu, found))
    (first_wall, first_cpu, found), (wall, cpu, _) = runs
    table.add_row("wall", f"{first_wall:.1f} s", f"{wall:.1f} s", "5 s")
    table.add_row("CPU", f"{first_cpu:.1f} s", f"{cpu:.1f} s", "5 s")
    table.add_row("plans simulated pass by pass", f"{found.simulated:,}", "", "50")
    table.add_row("step", f"{found.best.seconds:.2f} s", "", "")
    table.add_row("of the perfect mix", f"{found.share_of_bound:.1%}", "", "")
    console.print(table)
    console.print(conditions())


if __name__ == "__main__":
    main()
