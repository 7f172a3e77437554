"""Frozen dataclasses from JSON that somebody else may have written: every value is checked, nothing is run.

Takes what `json.loads` gives and the dataclass it should be; gives an instance, or a DataError that names the place.
"""

import dataclasses
import gzip
import json
import math
import types
import typing
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tapeout.errors import TapeoutError

Kind = TypeVar("Kind")

MOST_BYTES = 1 << 29
"""Of a file once it is unpacked. A compressed file of a stranger may hold any number."""


class DataError(TapeoutError, ValueError):
    """A file that does not hold what its name says."""


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """The JSON of a file, which may be compressed (.gz). Raises DataError that names the file."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                raw = file.read(most_bytes + 1)
        else:
            with open(path, "rb") as file:
                raw = file.read(most_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: cannot be read: {error}") from None
    if len(raw) > most_bytes:
        raise DataError(f"{path.name}: holds more than {most_bytes >> 20} MiB, which is not read")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: is not JSON: {error}") from None


def read(kind: type[Kind], data: Any, place: str) -> Kind:
    """An instance of the dataclass from plain data; keys that it does not know are ignored. Raises DataError."""
    return typing.cast(Kind, _read(kind, data, place))


def _read(kind: Any, data: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, place)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return _read(next(each for each in arguments if each is not type(None)), data, place)
    if origin in (tuple, list, Sequence):
        if not isinstance(data, list):
            raise DataError(f"{place} is not a list")
        return tuple(_read(arguments[0], each, f"{place}[{number}]") for number, each in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, dict):
            raise DataError(f"{place} is not an object")
        return {str(key): _read(arguments[1], value, f"{place}.{key}") for key, value in data.items()}
    if kind is float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
            raise DataError(f"{place} is not a number")
        return data
    if type(data) is not kind:
        raise DataError(f"{place} is not {_NAMES.get(kind, kind.__name__)}")
    return data


_NAMES = {int: "a whole number", str: "a text", bool: "true or false"}


def _read_dataclass(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise DataError(f"{place} is not an object")
    hints = _hints(kind)
    values = {}
    for each in dataclasses.fields(kind):
        here = f"{place}.{each.name}" if place else each.name
        if each.name in data:
            values[each.name] = _read(hints[each.name], data[each.name], here)
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            raise DataError(f"{here} is missing")
    return kind(**values)


def _hints(kind: Any) -> dict[str, Any]:
    """Types of the fields. A class that its module imports for type checking only is told here."""
    from tapeout.workbench.at_work import AtWork

    return typing.get_type_hints(kind, localns={"AtWork": AtWork})
