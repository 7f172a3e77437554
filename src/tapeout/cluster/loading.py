"""Loading of a `Cluster` from a name or a TOML file."""

import difflib
import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from tapeout.chip.description import shown_path
from tapeout.cluster.description import PROTOCOLS, Cluster, Level, Protocol
from tapeout.cluster.reference import REFERENCE_CLUSTERS
from tapeout.errors import ChipError

CLUSTER_VARIABLE = "TAPEOUT_CLUSTER"


def load(name_or_path: str | os.PathLike[str]) -> Cluster:
    """Return the reference cluster of that name, or the one in that TOML file. Raises ChipError."""
    given = os.fspath(name_or_path)
    if given in REFERENCE_CLUSTERS:
        return REFERENCE_CLUSTERS[given]
    path = Path(given)
    if path.suffix != ".toml":
        raise ChipError(f"{_unknown('cluster', given, REFERENCE_CLUSTERS)} Your own: a path that ends in .toml")
    where = shown_path(given)
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(f"cannot be read: {error}", where=where) from None
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"is not TOML: {error}", where=where) from None
    return _cluster(data, where)


def _cluster(data: dict[str, Any], where: str) -> Cluster:
    values: dict[str, Any] = {"protocols": PROTOCOLS}
    if base := data.pop("based_on", None):
        if base not in REFERENCE_CLUSTERS:
            raise ChipError(_unknown("cluster", base, REFERENCE_CLUSTERS), where=where)
        values = {field.name: getattr(REFERENCE_CLUSTERS[base], field.name) for field in fields(Cluster)}
    for kind, key in ((Level, "levels"), (Protocol, "protocols")):
        if key in data:
            tables = data.pop(key)
            if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
                raise ChipError(f"{key} is not a list of tables; write [[{key}]]", where=where)
            values[key] = tuple(_part(kind, table, f"{key}[{place}]", where) for place, table in enumerate(tables))
    cluster: Cluster = _part(Cluster, values | data, "cluster", where)
    return cluster


def _part(kind: type[Any], values: dict[str, Any], place: str, where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    for key in values:
        if key not in known:
            raise ChipError(f"{place}: {_unknown('field', key, known)}", where=where)
    if isinstance(values.get("shape"), list):
        values = {**values, "shape": tuple(values["shape"])}
    try:
        return kind(**values)
    except ChipError as error:
        raise ChipError(f"{place}: {error.sentence}", where=where) from None
    except TypeError:
        missing = [name for name, field in known.items() if name not in values and _is_required(field)]
        raise ChipError(f"{place}: {', '.join(missing)} is missing", where=where) from None


def _is_required(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is MISSING and field.default_factory is MISSING


def _unknown(what: str, given: str, known: Any) -> str:
    nearest = difflib.get_close_matches(given, known, n=1)
    guess = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {given!r}{guess} Known: {', '.join(known)}."
