"""A chip as a commented TOML file, to change and load again."""

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

from tapeout.chip.description import Chip, Part
from tapeout.chip.loading import NONE

WIDTH = 100


def commented_toml(chip: Chip) -> str:
    """Every field of the chip with its meaning, its bounds and its value. `tapeout.chip.load` gives an equal chip."""
    head = [
        f"# {chip.name}: every field of a chip. Change what you like; what is left out of a file with",
        '# `based_on = "inference"` is that chip\'s. Check it with `tapeout datasheet --strict`.',
        "",
    ]
    return "\n".join([*head, *_lines(chip, ())]) + "\n"


def _lines(part: Part, place: tuple[str, ...]) -> Iterator[str]:
    nested, left_out = [], []
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        if isinstance(value, Part):
            nested.append((field, value))
            continue
        if value is None and field.metadata.get("later"):
            left_out.append(field)
            continue
        yield from textwrap.wrap(
            field.metadata["meaning"] + _bounds(field.metadata), WIDTH, initial_indent="# ", subsequent_indent="# "
        )
        yield f"{field.name} = {_toml(value)}"
    if left_out:
        names = ", ".join(field.name for field in left_out)
        yield from textwrap.wrap(f"Also possible: {names}", WIDTH, initial_indent="# ", subsequent_indent="# ")
    for field, value in nested:
        yield ""
        yield f"# ---- {field.metadata['meaning']}"
        yield f"[{'.'.join((*place, field.name))}]"
        yield from _lines(value, (*place, field.name))


def _bounds(rules: Any) -> str:
    if rules["kind"] == "rate":
        return " (0, or a power of two from 1/64 to 4)"
    if rules["kind"] == "text" and rules["choices"]:
        return f" ({', '.join(rules['choices'])})"
    if rules["kind"] in ("count", "number"):
        least, most = rules["minimum"], rules["maximum"]
        return f" ({least:_} to {most:_})" if most is not None else f" ({least:_} or more)"
    return ""


def _toml(value: Any) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:_}" if isinstance(value, int) else repr(value)
