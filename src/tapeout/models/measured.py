"""Measured rows of the package aiconfigurator-core.

Every row that this module returns from the package may be looked at: `_allowed` drops, before anything else happens,
rows whose hash keeps them for judging and campaigns that are kept whole. Give it a campaign, take `Table`s with
seconds,
the median where a shape was measured several times.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources, util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.models.tables import (
    CHECK_BELOW,
    COLLECTIVES,
    FIT_BELOW,
    KINDS,
    Kind,
    ModelError,
    Table,
    share_of_hash,
)

KEPT_SYSTEMS = ("gb300", "rtx_pro_6000_server", "mi250", "l4")
KEPT_FRAMEWORKS = ("sglang",)
DTYPE_COLUMNS = {
    "gemm": "gemm_dtype",
    "context_attention": "attn_dtype",
    "generation_attention": "attn_dtype",
    "context_mla": "mla_dtype",
    "generation_mla": "mla_dtype",
    "moe": "moe_dtype",
    **dict.fromkeys(COLLECTIVES, "nccl_dtype"),
}


@dataclass(frozen=True)
class Campaign:
    """Conditions under which a set of rows was measured: chip, software, mode of launch. A campaign's launch cost,
    cache state and clock are its own; nothing of them belongs to the chip."""

    name: str
    chip: str
    framework: str
    version: str
    system: str
    tables: Mapping[str, str]
    mode: str
    cache: str
    clock: str
    timer_resolution_us: float
    source: str
    licence: str
    note: str = ""


@cache
def campaigns() -> dict[str, Campaign]:
    """Every campaign there are parameters for."""
    text = (resources.files("tapeout.models") / "data" / "campaigns.toml").read_text("utf-8")
    return {name: Campaign(name=name, **fields) for name, fields in tomllib.loads(text).items()}


def package_folder() -> Path | None:
    """Return where aiconfigurator-core keeps its tables, or None where it (or what reads them) is not installed."""
    found = util.find_spec("aiconfigurator_core")
    if found is None or not found.submodule_search_locations or util.find_spec("pyarrow") is None:
        return None
    return Path(found.submodule_search_locations[0]) / "systems" / "data"


def tables_of(campaign: Campaign) -> Iterator[Table]:
    """The campaign's rows that may be fitted or may check a fit, a table for each operator and element type."""
    folder = package_folder()
    if folder is None:
        raise ModelError(
            "the package aiconfigurator-core is not installed; "
            "in Tapeout's source folder: pip install --editable '.[models]'"
        )
    if campaign.system in KEPT_SYSTEMS or campaign.framework.casefold() in KEPT_FRAMEWORKS:
        raise ModelError(f"campaign {campaign.name} is kept for judging")
    import pyarrow.parquet

    for kind_name, place in campaign.tables.items():
        read = pyarrow.parquet.read_table(folder / campaign.system / place)
        columns = {name: read.column(name).to_numpy(zero_copy_only=False) for name in read.column_names}
        yield from _tables(kind_name, columns)


def _tables(kind_name: str, columns: Mapping[str, NDArray[np.generic]]) -> Iterator[Table]:
    names = COLLECTIVES if kind_name == "collectives" else (kind_name,)
    for name in names:
        kind = KINDS[name]
        chosen = columns["op_name"] == name if kind_name == "collectives" else np.ones(len(columns["latency"]), bool)
        dtypes = columns[DTYPE_COLUMNS[name]].astype(np.str_)
        for dtype in np.unique(dtypes[chosen]):
            mine = chosen & (dtypes == dtype)
            yield _allowed(_table(kind, str(dtype), {key: values[mine] for key, values in columns.items()}))


def _table(kind: Kind, dtype: str, columns: Mapping[str, NDArray[np.generic]]) -> Table:
    count = len(next(iter(columns.values())))
    return Table(
        kind,
        dtype,
        {
            field: np.asarray(columns.get(field, np.full(count, kind.defaults.get(field, 0))), np.float64)
            for field in kind.fields
        },
        {word: np.asarray(columns[word]).astype(np.str_) for word in kind.words},
        np.asarray(columns["latency"], np.float64) * 1e-3,
    )


def _allowed(rows: Table) -> Table:
    """The rows whose hash lets them be fitted or checked against, one a shape: the median of its measurements."""
    keys = rows.keys()
    shares = {key: share_of_hash(key) for key in dict.fromkeys(keys)}
    chosen = np.array([shares[key] < CHECK_BELOW for key in keys], bool)
    kept = rows.take(chosen)
    assert kept.seconds is not None
    keys = [key for key, is_kept in zip(keys, chosen, strict=True) if is_kept]
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    numbers = np.array([order[key] for key in keys], np.int64)
    first = np.unique(numbers, return_index=True)[1]
    by_shape = np.argsort(numbers, kind="stable")
    groups = np.split(kept.seconds[by_shape], np.cumsum(np.bincount(numbers))[:-1]) if len(numbers) else []
    merged = kept.take(first)
    medians = np.array([np.median(group) for group in groups])
    return Table(merged.kind, merged.dtype, merged.columns, merged.words, medians)


def split(rows: Table) -> tuple[Table, Table, Table]:
    """Rows to fit, rows that check the fit, and check rows of regions that no fitted row lies in."""
    keys = rows.keys()
    shares = np.array([share_of_hash(key) for key in keys])
    unseen = in_unseen_region(rows)
    return (
        rows.take((shares < FIT_BELOW) & ~unseen),
        rows.take((shares >= FIT_BELOW) & ~unseen),
        rows.take((shares >= FIT_BELOW) & unseen),
    )


def in_unseen_region(rows: Table) -> NDArray[np.bool_]:
    """Return which rows lie in regions that are never fitted, so that predictions there are known to be
    extrapolations."""

    def shares(*fields: str) -> NDArray[np.float64]:
        texts = [
            ",".join(f"{name}={value:.0f}" for name, value in zip(fields, each, strict=True))
            for each in zip(*(rows[name] for name in fields), strict=True)
        ]
        known = {text: share_of_hash(text) for text in dict.fromkeys(texts)}
        return np.array([known[text] for text in texts])

    name = rows.kind.name
    if name == "gemm":
        return np.isin(rows["m"], (4353, 8192, 12289, 16384, 32768)) | (shares("n", "k") >= 0.8)
    if name in ("context_attention", "context_mla"):
        return rows["isl"] >= 10240
    if name in ("generation_attention", "generation_mla"):
        return rows["step"] + 1 >= 32768
    if name == "moe":
        return shares("hidden_size", "inter_size", "topk", "num_experts") >= 0.7
    if name in COLLECTIVES:
        return rows["message_size"] * (2 if rows.dtype == "half" else 1) > 64 * 2**20
    return np.zeros(len(rows), bool)
