"""Translation of a user's words into a `Timer` for each chip and a table for an operator."""

import os
from collections.abc import Sequence
from pathlib import Path

from tapeout.models import parameters, userrows
from tapeout.models.parameters import Parameters
from tapeout.models.tables import ModelError, Table, kind_called, table
from tapeout.models.timers import Timer, Times
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator

ALIASES = {
    "matmul": "gemm",
    "attention": "context_attention",
    "prefill": "context_attention",
    "decode": "generation_attention",
    "mla-prefill": "context_mla",
    "mla-decode": "generation_mla",
    "layernorm": "norm",
    "rmsnorm": "norm",
    "conv": "convolution",
    "bag": "embedding",
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "alltoall",
}
FOLDER_VARIABLE = "TAPEOUT_MODELS"


def own_folder() -> Path:
    """Return where parameters that a user fitted are kept."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".config" / "tapeout" / "models"


def own_parameters() -> tuple[Parameters, ...]:
    folder = own_folder()
    return tuple(parameters.load(path) for path in sorted(folder.glob("*.toml"))) if folder.is_dir() else ()


def timers(
    names: Sequence[str],
    *,
    own_catalog: Path | None = None,
    campaign: str = "",
    without_family: bool = False,
    assume: bool = False,
    measured: Path | None = None,
) -> list[Timer]:
    """A timer for each chip of that name. Raises ModelError, ChipError or CatalogError for names nobody knows."""
    if not names:
        raise ModelError("name at least one chip with --on")
    if measured is not None and len(names) > 1:
        raise ModelError("--measured rows belong to one chip; name one with --on")
    figures = technology.load()
    rows = tuple(group.table for group in userrows.read(measured, needs_times=True).groups) if measured else ()
    own = own_parameters()
    return [
        Timer(
            chip=accelerator(name, figures, own_catalog=own_catalog),
            campaign=campaign,
            without_family=without_family,
            assume=assume,
            own=own,
            rows=rows,
        )
        for name in names
    ]


def table_of(operator: str, sizes: Sequence[str], dtype: str) -> Table:
    """One operator from what stands on a command line: sizes in order, or field=value."""
    kind = kind_called(ALIASES.get(operator, operator))
    values: dict[str, float | str] = {}
    order = iter(kind.fields)
    for text in sizes:
        if text.startswith("--"):
            raise ModelError(f"there is no option {text!r}")
        name, is_named, value = text.rpartition("=")
        if not is_named:
            name = next(order, "")
            if not name:
                raise ModelError(
                    f"{operator} has {len(kind.fields)} sizes, {', '.join(kind.fields)}; {text!r} is one more"
                )
        if name in kind.words:
            values[name] = value
            continue
        try:
            values[name] = float(value)
        except ValueError:
            raise ModelError(f"{operator} {name}={value!r} is not a number") from None
    return table(kind.name, dtype, **values)


def answers(asked: Table, on: Sequence[Timer]) -> list[tuple[Timer, Times | ModelError]]:
    """Each chip's answer, or why it has none. Raises that reason when no chip has one."""
    found: list[tuple[Timer, Times | ModelError]] = []
    for timer in on:
        try:
            found.append((timer, timer.time(asked)))
        except ModelError as error:
            found.append((timer, error))
    if all(isinstance(answer, ModelError) for _, answer in found):
        first = found[0][1]
        assert isinstance(first, ModelError)
        raise first
    return found
