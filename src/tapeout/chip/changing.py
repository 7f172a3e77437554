"""A chip with some fields changed, by their places in the description ("core.matrix.row_count").

What belongs together follows: a stack of memory brings its capacity, bandwidth and channels with it unless these are
changed too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tapeout.chip.description import Chip, Part
from tapeout.errors import ChipError

STACKS = "hbm.stack_count"
_OF_A_STACK = ("size_bytes", "bandwidth_bytes_per_s", "channel_count")


def changed(chip: Chip, changes: Mapping[str, Any]) -> Chip:
    """The chip with these fields changed. Raises ChipError for a place that is no field, and for an impossible chip."""
    wanted = dict(changes)
    if STACKS in wanted and chip.hbm is not None:
        stacks = wanted[STACKS]
        for name in _OF_A_STACK:
            if isinstance(stacks, int) and f"hbm.{name}" not in wanted:
                wanted[f"hbm.{name}"] = getattr(chip.hbm, name) // chip.hbm.stack_count * stacks
    tree: dict[str, Any] = {}
    for place, value in wanted.items():
        *parts, last = place.split(".")
        inside = tree
        for part in parts:
            inside = inside.setdefault(part, {})
        inside[last] = value
    made = _changed(chip, tree, "")
    assert isinstance(made, Chip)
    return made


def value_of(chip: Chip, place: str) -> Any:
    """The value of one field. Raises ChipError for a place that is none."""
    found: Any = chip
    for part in place.split("."):
        if not isinstance(found, Part) or part not in _names(found):
            raise ChipError(f"a chip has no field {place!r}")
        found = getattr(found, part)
    if isinstance(found, Part):
        raise ChipError(f"{place!r} is a part of the chip, not a field; name one of its fields")
    return found


def _names(part: Part) -> set[str]:
    return {field.name for field in dataclasses.fields(part)}  # type: ignore[arg-type]


def _changed(part: Part, tree: Mapping[str, Any], place: str) -> Part:
    values: dict[str, Any] = {}
    for name, value in tree.items():
        here = f"{place}{name}"
        if name not in _names(part):
            raise ChipError(f"a chip has no field {here!r}")
        inner = getattr(part, name)
        if isinstance(inner, Part) != isinstance(value, dict):
            raise ChipError(f"{here!r} is not one field of a chip")
        values[name] = _changed(inner, value, f"{here}.") if isinstance(value, dict) else value
    return dataclasses.replace(part, **values)  # type: ignore[type-var]
