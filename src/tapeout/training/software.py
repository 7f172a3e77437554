"""Software eras: the share of a step that neither chip nor network decides.

An era has three numbers that may be fitted and no more: host time of a layer's pass, time of products over that of
tuned kernels, and a third: overlap of collectives with products, or, of eager software, which overlaps nothing, time of
vector operators over that of their bytes. They are read from `data/software.toml`; a fit on rows that the repository
names replaces them (`data/fitted.toml`).
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tapeout.figures import Estimate, Provenance, given
from tapeout.training.problems import TrainingError

COLUMNS = {"host_us": "host", "overlap": "overlap", "gemm": "gemm", "vector": "vector"}
"""Numbers of an era: the column in the files, and the attribute."""


SPREAD = {"host_us": (0.7, 1.4), "overlap": (1.0, 1.0), "gemm": (0.86, 1.16), "vector": (0.7, 1.4)}
OVERLAP_SPREAD = 0.2
"""Ends of a fitted number's range over it, and around the overlap: so wide that about four of five published runs that
were not fitted lie within the range of their steps."""


@dataclass(frozen=True, eq=False)
class SoftwareEra:
    """`host`: seconds of one layer's forward pass; `overlap`, `gemm` and `vector`: shares. `eager`: an operator at a
    time, none beside another.

    `attention`: share of peak that its fused attention reaches on chips with asynchronous copies, for kernels written
    before them; 0: the operator model's. A published fact, not fitted. `blocking`: a stage waits while it sends and
    receives (Megatron-LM until 2023). `once_per_node`: a token goes to a node once, however many of its experts are
    there (DeepEP, 2025). `loss_bytes`: of logits, copies and gradients for each word of the vocabulary and token.
    """

    name: str
    date: str
    what: str
    host: Estimate
    overlap: Estimate
    gemm: Estimate
    vector: Estimate
    eager: bool = False
    attention: float = 0.0
    blocking: bool = False
    once_per_node: bool = False
    loss_bytes: float = 6.0

    @property
    def free(self) -> tuple[str, ...]:
        """Columns of the three numbers that a fit may set."""
        return ("host_us", "gemm", "vector") if self.eager else ("host_us", "overlap", "gemm")


@cache
def fitted() -> dict[str, dict[str, Any]]:
    """The record of the last fit, by era: its numbers, its error, and its rows with their digest."""
    path = resources.files("tapeout.training") / "data" / "fitted.toml"
    return tomllib.loads(path.read_text("utf-8"))


@cache
def eras() -> dict[str, SoftwareEra]:
    """Every era by name."""
    folder = resources.files("tapeout.training") / "data"
    found = {}
    for name, entry in tomllib.loads((folder / "software.toml").read_text("utf-8")).items():
        entry.setdefault("vector", [1.0, 0.95, 1.2])
        provenance = Provenance.named(entry["provenance"])
        source = entry.get("source", entry["what"])
        record = fitted().get(entry.get("like", name))
        if record is not None:
            provenance, source = Provenance.MODELLED, f"fitted to {len(record['rows'])} published runs"
            for column in COLUMNS.keys() & record.keys():
                value = float(record[column])
                low, high = SPREAD[column]
                entry[column] = [value, low * value, high * value]
                if column == "overlap":
                    entry[column] = [value, max(value - OVERLAP_SPREAD, 0.0), min(value + OVERLAP_SPREAD, 1.0)]

        def figure(
            what: str,
            column: str,
            unit: str,
            scale: float = 1.0,
            *,
            name: str = name,
            entry: dict[str, list[float]] = entry,
            provenance: Provenance = provenance,
            source: str = source,
        ) -> Estimate:
            value, low, high = (scale * each for each in entry[column])
            return given(f"{what} ({name})", value, unit, provenance, source, low=low, high=high)

        found[name] = SoftwareEra(
            name=name,
            date=entry["date"],
            what=entry["what"],
            host=figure("host time of a layer's pass", "host_us", "s", 1e-6),
            overlap=figure("overlap of collectives", "overlap", ""),
            gemm=figure("products over tuned kernels", "gemm", ""),
            vector=figure("vector operators over their bytes", "vector", ""),
            eager=entry.get("eager", False),
            attention=entry.get("attention", 0.0),
            blocking=entry.get("blocking", False),
            once_per_node=entry.get("once_per_node", False),
            loss_bytes=entry.get("loss_bytes", 6.0),
        )
    return found


def era_called(name: str) -> SoftwareEra:
    if name not in eras():
        raise TrainingError(f"unknown software era {name!r}; known: {', '.join(eras())}")
    return eras()[name]
