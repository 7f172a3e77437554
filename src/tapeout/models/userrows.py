"""Tables of operators as CSV: a user's own rows, or rows with the columns of aiconfigurator-core.

A row says its operator (`op` or `op_name`; or its dtype column tells: `gemm_dtype`, `attn_dtype`, `moe_dtype`,
`nccl_dtype`), its element type (`dtype` or that column) and its sizes. Measured time is `seconds`, or `latency` in
milliseconds. A bad cell is refused by row and column.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.chip.description import shown_path
from tapeout.models.tables import (
    DISTRIBUTIONS,
    DTYPE_BYTES,
    KINDS,
    ModelError,
    Table,
    first_contradiction,
    first_fault,
)

_DTYPE_COLUMNS = ("dtype", "gemm_dtype", "attn_dtype", "mla_dtype", "moe_dtype", "nccl_dtype")
_ALIASES = {"mla_context": "context_mla", "mla_generation": "generation_mla", "linear": "gemm", "matmul": "gemm"}
SLOWEST_S = 1e5
"""A measured time above a day is a time in another unit."""


@dataclass(frozen=True)
class Group:
    """Rows of one operator, element type and software, and where in the file they stand."""

    table: Table
    places: NDArray[np.int64]
    framework: str
    version: str


@dataclass(frozen=True)
class Sheet:
    """A file: its header, its cells, and its rows in groups."""

    where: str
    header: list[str]
    cells: list[list[str]]
    groups: tuple[Group, ...]


def read(path: Path, *, needs_times: bool = False) -> Sheet:
    """Raises ModelError that names the file, the row and the column of the first fault."""
    where = shown_path(str(path))
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            cells = [row for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ModelError(f"{where}: cannot be read: {error}") from None
    if not cells:
        raise ModelError(f"{where}: holds no rows")
    for number, row in enumerate(cells):
        if len(row) != len(header):
            raise ModelError(f"{where}:{number + 2}: {len(row)} cells where the header has {len(header)}")
    columns = dict(zip(header, zip(*cells, strict=True), strict=True))
    return Sheet(where, header, cells, tuple(_groups(where, columns, len(cells), needs_times)))


def _groups(where: str, columns: Mapping[str, Sequence[str]], count: int, needs_times: bool) -> Iterator[Group]:
    dtype_column = next((name for name in _DTYPE_COLUMNS if name in columns), None)
    if dtype_column is None:
        raise ModelError(f"{where}:1: no column says the element type; name one `dtype`")
    names = np.array(_operators(where, columns, dtype_column, count))
    dtypes = np.array([each.strip() for each in columns[dtype_column]])
    blank = [""] * count
    frameworks = np.array([each.strip().casefold() for each in columns.get("framework", blank)])
    versions = np.array([each.strip() for each in columns.get("version", blank)])
    whole = np.char.add(np.char.add(np.char.add(np.char.add(names, "\x00"), dtypes), "\x00"), frameworks)
    whole = np.char.add(np.char.add(whole, "\x00"), versions)
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    for number in np.argsort(first):
        places = np.flatnonzero(which == number)
        at = int(first[number])
        if names[at] not in KINDS:
            raise ModelError(f"{where}:{at + 2}: op={str(names[at])!r} is not an operator; known: {', '.join(KINDS)}")
        if dtypes[at] not in DTYPE_BYTES:
            known = ", ".join(DTYPE_BYTES)
            raise ModelError(f"{where}:{at + 2}: {dtype_column}={str(dtypes[at])!r} is not known; known: {known}")
        table = _table(where, columns, places, str(names[at]), str(dtypes[at]), needs_times)
        yield Group(table, places, str(frameworks[at]), str(versions[at]))


def _operators(where: str, columns: Mapping[str, Sequence[str]], dtype_column: str, count: int) -> list[str]:
    for name in ("op", "op_name"):
        if name in columns:
            return [_ALIASES.get(each.strip(), each.strip()) for each in columns[name]]
    told = {"gemm_dtype": "gemm", "moe_dtype": "moe"}.get(dtype_column)
    if told is not None:
        return [told] * count
    if dtype_column == "attn_dtype" and "step" in columns:
        return ["generation_attention" if _is_positive(each) else "context_attention" for each in columns["step"]]
    raise ModelError(f"{where}:1: no column says the operator; name one `op`")


def _is_positive(text: str) -> bool:
    try:
        return float(text or 0) > 0
    except ValueError:
        return False


def _table(
    where: str,
    columns: Mapping[str, Sequence[str]],
    places: NDArray[np.int64],
    name: str,
    dtype: str,
    needs_times: bool,
) -> Table:
    kind = KINDS[name]
    sizes = {}
    for field in kind.fields:
        if field not in columns:
            if field not in kind.defaults:
                raise ModelError(f"{where}:1: {name} needs a column {field!r}; it takes {', '.join(kind.fields)}")
            sizes[field] = np.full(len(places), float(kind.defaults[field]))
        else:
            sizes[field] = _numbers(where, field, columns[field], places, kind.defaults.get(field))
        fault = first_fault(field, sizes[field], kind)
        if fault is not None:
            raise ModelError(f"{where}:{places[fault[0]] + 2}: {fault[1]}")
    if "num_key_value_heads" in sizes:
        own = sizes["num_key_value_heads"]
        sizes["num_key_value_heads"] = np.where(own == 0, sizes["num_heads"], own)
    words = {}
    for word in kind.words:
        known: Sequence[str] = DISTRIBUTIONS if word == "distribution" else tuple(DTYPE_BYTES)
        default = "power_law_1.2" if word == "distribution" else dtype
        texts = [columns[word][at].strip() or default for at in places] if word in columns else [default] * len(places)
        for at, text in zip(places, texts, strict=True):
            if text not in known:
                raise ModelError(f"{where}:{at + 2}: {word}={text!r} is not known; known: {', '.join(known)}")
        words[word] = np.array(texts)
    seconds = None
    if "seconds" in columns or "latency" in columns:
        column = "seconds" if "seconds" in columns else "latency"
        seconds = _numbers(where, column, columns[column], places, None if needs_times else np.nan)
        seconds = seconds * (1.0 if column == "seconds" else 1e-3)
        if needs_times:
            for at, value in zip(places, seconds, strict=True):
                if not 0 < value < SLOWEST_S:
                    unit = "s" if column == "seconds" else "ms"
                    raise ModelError(
                        f"{where}:{at + 2}: {column}={columns[column][at]} is not a time of an operator in {unit}"
                    )
    elif needs_times:
        raise ModelError(f"{where}:1: no column says the time; name one `seconds`, or `latency` in milliseconds")
    table = Table(kind, dtype, sizes, words, seconds)
    wrong = first_contradiction(table)
    if wrong is not None:
        raise ModelError(f"{where}:{places[wrong[0]] + 2}: {wrong[1]}")
    return table


def _numbers(
    where: str, name: str, texts: Sequence[str], places: NDArray[np.int64], default: float | None
) -> NDArray[np.float64]:
    chosen = [texts[at] for at in places]
    try:
        return np.array(chosen, np.float64)
    except ValueError:
        pass
    values = np.empty(len(places))
    for number, (at, text) in enumerate(zip(places, chosen, strict=True)):
        if not text.strip() and default is not None:
            values[number] = default
            continue
        try:
            values[number] = float(text)
        except ValueError:
            raise ModelError(f"{where}:{at + 2}: {name}={text!r} is not a number") from None
    return values
