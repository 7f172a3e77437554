"""Loading of a `Cluster` from a name or a TOML file.

Clusters of chips that exist, with the constants measured of them, are TOML themselves: the file measured.toml beside
this one, which `python -m benchmarks collectives --write` writes.
"""

import difflib
import functools
import os
import tomllib
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from tapeout.chip.description import shown_path
from tapeout.cluster.description import PROTOCOLS, Cluster, Level, Protocol
from tapeout.cluster.reference import REFERENCE_CLUSTERS
from tapeout.errors import ChipError

CLUSTER_VARIABLE = "TAPEOUT_CLUSTER"
MEASURED = "measured.toml"


def load(name_or_path: str | os.PathLike[str]) -> Cluster:
    """Return the cluster of that name that ships, or the one in that TOML file. Raises ChipError."""
    given = os.fspath(name_or_path)
    if given in REFERENCE_CLUSTERS:
        return REFERENCE_CLUSTERS[given]
    path = Path(given)
    if path.suffix != ".toml":
        if given in shipped():
            return shipped()[given]
        raise ChipError(f"{_unknown('cluster', given, shipped())} Your own: a path that ends in .toml")
    where = shown_path(given)
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(f"cannot be read: {error}", where=where) from None
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"is not TOML: {error}", where=where) from None
    return _cluster(data, where)


@functools.cache
def shipped() -> dict[str, Cluster]:
    """Every cluster that ships, by name: first those of our own chips, then those of chips that exist."""
    found = dict(REFERENCE_CLUSTERS)
    place = resources.files("tapeout.cluster") / MEASURED
    for name, table in tomllib.loads(place.read_text("utf-8")).items():
        found[name] = _cluster({"name": name, **table}, f"{MEASURED}:{name}")
    return found


def named() -> Cluster | None:
    """Return the cluster that TAPEOUT_CLUSTER names, if it names one. Raises ChipError."""
    name = os.environ.get(CLUSTER_VARIABLE)
    return load(name) if name else None


def _cluster(data: dict[str, Any], where: str) -> Cluster:
    values: dict[str, Any] = {"protocols": PROTOCOLS}
    if base := data.pop("based_on", None):
        if base not in shipped():
            raise ChipError(_unknown("cluster", base, shipped()), where=where)
        values = {field.name: getattr(shipped()[base], field.name) for field in fields(Cluster)}
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
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
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
