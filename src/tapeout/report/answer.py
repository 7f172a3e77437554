"""The table under an answer of the language model."""

from collections.abc import Mapping

from rich.table import Table

from tapeout.report.units import decimal
from tapeout.workbench.language_model import Answer


def table_of(answer: Answer) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    work = answer.work
    rows = [
        ("tokens", f"{len(answer.token_ids)} after a prompt of {answer.prompt_token_count}"),
        ("host time", f"{answer.total_s:.2f} s, first token after {answer.first_token_s:.2f} s"),
        (
            "kernels",
            f"{work.kernels_compiled} compiled, {work.kernels_loaded} from the cache, {work.kernels_launched} launches",
        ),
        ("instructions", _each(work.instructions_by_engine) or "none"),
        (
            "HBM traffic",
            f"{decimal(work.hbm_read_bytes, 'B')} read, {decimal(work.hbm_written_bytes, 'B')} written",
        ),
    ]
    if answer.tokens_per_s is not None:
        rows.insert(2, ("rate", f"{answer.tokens_per_s:.1f} tokens/s at the median wait between tokens"))
    if work.share_on_chip is not None:
        rows.append(("operators", f"{work.share_on_chip:.1%} on the chip"))
    rows.append(("on the host", _each(work.ops_on_host) or "no operator"))
    for row in rows:
        table.add_row(*row)
    return table


def _each(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered)
