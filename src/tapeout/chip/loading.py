"""Loading of a `Chip` from a name or a file, and the one chip that is active in this process.

A `.py` file is the user's program and is run. A `.toml` or `.json` file is data: it is parsed, checked
against the description's fields and never runs anything.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tapeout.chip.description import Chip, class_of_part, fault_of_field, shown_path
from tapeout.chip.reference import REFERENCE_CHIPS
from tapeout.errors import ChipError

CHIP_VARIABLE = "TAPEOUT_CHIP"
DEFAULT_CHIP = "inference"
CHIPS_VARIABLE = "TAPEOUT_CHIPS"
"""Chips of one process: how many of the active one, or a list such as "training,training,inference"."""
MOST_CHIPS = 64
NONE = "none"
"""In a data file, a part that the chip lacks."""

EXAMPLES = Path(__file__).with_name("examples")
EXAMPLE_CHIPS = (
    "groq-like",
    "etched-like",
    "tenstorrent-like",
    "wafer-like",
    "stacked-dram",
    "optical",
    "gpu-like",
    "tpu-like",
)
"""Chip files that ship beside the reference chips: kinds that others build, with the sources of their figures."""

KeyPath = tuple[str, ...]


def load(name_or_path: str | os.PathLike[str]) -> Chip:
    """The reference or example chip of that name, or the chip in that .py, .toml or .json file. Raises ChipError."""
    given = os.fspath(name_or_path)
    if given in REFERENCE_CHIPS:
        return REFERENCE_CHIPS[given]
    if given in EXAMPLE_CHIPS:
        return example(given)
    readers = {".py": _load_python, ".toml": _load_toml, ".json": _load_json}
    path = Path(given)
    if path.suffix in readers:
        if not path.is_file():
            raise ChipError(f"there is no chip file {given!r} in {os.getcwd()}")
        return readers[path.suffix](path)
    if path.exists():
        raise ChipError(f"{given} is not a chip file; one ends in {', '.join(readers)}")
    raise ChipError(
        _unknown("chip", given, (*REFERENCE_CHIPS, *EXAMPLE_CHIPS))
        + ". Your own: a path that ends in .py, .toml or .json"
    )


@functools.cache
def example(name: str) -> Chip:
    """One of EXAMPLE_CHIPS."""
    return _load_toml(EXAMPLES / f"{name}.toml")


def _load_python(path: Path) -> Chip:
    import runpy  # here and below: most programs name a reference chip and need none of the readers

    try:
        names = runpy.run_path(str(path))
    except ChipError:
        raise
    except Exception as error:
        raise ChipError(f"{type(error).__name__}: {error}", where=_line_in_file(error, path)) from error
    if isinstance(chip := names.get("chip"), Chip):
        return chip
    shipped = {id(chip) for chip in REFERENCE_CHIPS.values()}  # imported to build upon, not what the file is about
    own = {name: value for name, value in names.items() if isinstance(value, Chip) and id(value) not in shipped}
    if not own:
        raise ChipError("defines no chip; assign one to the name `chip`", where=shown_path(str(path)))
    if len({id(value) for value in own.values()}) > 1:
        listed = ", ".join(own)
        raise ChipError(f"defines several chips ({listed}); name the one to use `chip`", where=shown_path(str(path)))
    return next(iter(own.values()))


def _line_in_file(error: Exception, path: Path) -> str:
    import traceback

    if isinstance(error, SyntaxError):
        return f"{shown_path(str(path))}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{shown_path(str(path))}:{lines[-1]}" if lines else shown_path(str(path))


def _load_toml(path: Path) -> Chip:
    import tomllib

    text = _read(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"is not TOML: {error}", where=shown_path(str(path))) from None
    return _DataFile(path, _lines_of_toml_keys(text)).chip(data)


def _load_json(path: Path) -> Chip:
    text = _read(path)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ChipError(f"is not JSON: {error.msg}", where=f"{shown_path(str(path))}:{error.lineno}") from None
    return _DataFile(path, _lines_of_json_keys(text)).chip(data)


def from_plain(data: Any, where: str) -> Chip:
    """A chip from plain nested values, as `Chip.to_dict` gives them. Raises ChipError that names `where`."""
    return _DataFile(Path(where), {}).chip(data)


def read_data(path: Path) -> Chip:
    """The chip of a .toml or .json file and of no other: nothing of it is run. Raises ChipError."""
    if path.suffix not in (".toml", ".json"):
        raise ChipError("is a program; only .toml and .json files are data", where=shown_path(str(path)))
    return _load_toml(path) if path.suffix == ".toml" else _load_json(path)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(f"cannot be read: {error}", where=shown_path(str(path))) from None


class _Whole(dict[str, Any]):
    """A table that takes nothing from the chip it is based on."""


@dataclasses.dataclass(frozen=True)
class _DataFile:
    """A parsed data file on its way to becoming a chip; knows on which line each key stands."""

    path: Path
    line_of_key: dict[KeyPath, int]

    def chip(self, data: Any) -> Chip:
        if not isinstance(data, dict):
            raise self.error((), "holds no table of chip fields")
        values = self.with_one_memory(data)
        base = values.pop("based_on", None)
        if base is not None and base not in REFERENCE_CHIPS:
            raise self.error(("based_on",), _unknown("chip", base, REFERENCE_CHIPS))
        faults: list[ChipError] = []
        chip: Chip = self.part(Chip, values, (), REFERENCE_CHIPS[base] if base is not None else None, faults)
        if len(faults) == 1:
            raise faults[0]
        if faults:
            listed = "".join(f"\n  {fault}" for fault in faults)
            raise ChipError(f"{len(faults)} faults{listed}", where=shown_path(str(self.path)))
        return chip

    def with_one_memory(self, data: dict[str, Any]) -> dict[str, Any]:
        """The values with `memories`, a list of at most one, written as the field that holds it. Raises ChipError."""
        values = dict(data)
        if "memories" not in values:
            return values
        memories = values.pop("memories")
        if not isinstance(memories, list) or not all(isinstance(each, dict) for each in memories):
            raise self.error(("memories",), "memories is not a list of tables; [[memories]] opens each, [] is none")
        if "hbm" in values:
            raise self.error(("memories",), "memories and hbm both describe the main memory; leave one of them out")
        if len(memories) > 1:
            raise self.error(
                ("memories",),
                f"{len(memories)} memories: a program sees one address space at one rate. Describe them as one, or the "
                "nearer one as last_level_sram",
            )
        values["hbm"] = _Whole(memories[0]) if memories else NONE
        for (first, *rest), line in list(self.line_of_key.items()):
            if first == "memories":
                self.line_of_key["hbm", *rest] = line
        return values

    def part(self, kind: type[Any], values: dict[str, Any], place: KeyPath, base: Any, faults: list[ChipError]) -> Any:
        """Build one part from its table; fields the table leaves out come from `base`, then from defaults. Adds every
        fault to `faults`, and returns None if it found one."""
        fields = {field.name: field for field in dataclasses.fields(kind)}
        built: dict[str, Any] = {name: getattr(base, name) for name in fields} if base is not None else {}
        before = len(faults)
        misspelt = set()
        for key, value in values.items():
            here = (*place, key)
            if key not in fields:
                faults.append(self.error(here, f"{'.'.join(here)}: " + _unknown("field", key, fields)))
                misspelt.add(_nearest(key, fields))
                continue
            nested = class_of_part(fields[key])
            if nested is not None:
                if value == NONE and fields[key].metadata.get("optional"):
                    built[key] = None
                elif isinstance(value, dict):
                    inherited = None if isinstance(value, _Whole) else built.get(key)
                    built[key] = self.part(nested, value, here, inherited, faults)
                else:
                    faults.append(self.error(here, f"{'.'.join(here)}={value!r} is not a table"))
                continue
            built[key] = value
            if fault := fault_of_field(fields[key], value):
                faults.append(self.error(here, f"{'.'.join(here)}={value!r} {fault}"))
        for field in fields.values():
            if {field.name} & (values.keys() | built.keys() | misspelt):
                continue
            if field.default is dataclasses.MISSING:
                name = ".".join((*place, field.name))
                faults.append(self.error(place, f"{name} is missing ({field.metadata['meaning']})"))
        if len(faults) > before:
            return None
        try:
            return kind(**built)
        except ChipError as error:
            here = (*place, error.field or "")
            sentence = error.sentence.replace(f"{kind.label}.{error.field}", ".".join(here), 1)
            faults.append(self.error(here, sentence))
            return None

    def error(self, place: KeyPath, sentence: str) -> ChipError:
        line = None
        while place and line is None:  # a key inside an inline table is on its table's line
            line = self.line_of_key.get(place)
            place = place[:-1]
        file = shown_path(str(self.path))
        return ChipError(sentence, where=f"{file}:{line}" if line else file)


def _lines_of_toml_keys(text: str) -> dict[KeyPath, int]:
    """Line of each table header and of each key that begins a line; inside inline tables nothing is noted."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    key = r"[A-Za-z0-9_\"'-]+(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*"
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(rf"\s*\[\[?\s*({key})\s*\]\]?", line):
            table = _split_key(header[1])
            lines.setdefault(table, number)
        elif assignment := re.match(rf"\s*({key})\s*=", line):
            lines.setdefault((*table, *_split_key(assignment[1])), number)
    return lines


def _split_key(dotted: str) -> KeyPath:
    return tuple(word.strip().strip("\"'") for word in dotted.split("."))


def _lines_of_json_keys(text: str) -> dict[KeyPath, int]:
    """Line of each key of an already valid JSON text."""
    lines: dict[KeyPath, int] = {}
    open_keys: list[str] = []
    key = ""
    for token in re.finditer(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}]', text):
        if token[0] == "{":
            open_keys.append(key)
        elif token[0] == "}":
            open_keys.pop()
        elif token[2]:
            key = token[1]
            lines.setdefault((*open_keys[1:], key), text.count("\n", 0, token.start()) + 1)
    return lines


def _unknown(what: str, given: Any, known: Any) -> str:
    nearest = _nearest(given, known)
    guess = f"; did you mean {nearest!r}?" if nearest else "."
    return f"unknown {what} {given!r}{guess} Known: {', '.join(known)}"


def _nearest(given: Any, known: Any) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(str(given), known, n=1)), None)


_active: Chip | None = None
_serial = -1
_serials: dict[Chip, int] = {}
_refusals: list[Callable[[], str | None]] = []
_current_index: Callable[[], int] | None = None
_several: tuple[tuple[Chip, int], ...] = ()
"""The chips of a process that simulates more than one and has begun to use them, with their serial numbers."""


def active() -> Chip:
    """The chip this process runs on: the one activated, else the one TAPEOUT_CHIP names, else `inference`. Of several
    it is the current thread's."""
    if _several:
        return _several[current_index()][0]
    if _active is None:
        _make_active(load(named()))
    assert _active is not None
    return _active


def active_serial() -> int:
    """A number for the active chip, under which to keep what was made for it: equal for equal chips only."""
    if _several:
        return _several[current_index()][1]
    if _active is None:
        active()
    return _serial


def current_index() -> int:
    """Return which of the process's chips is the current thread's."""
    return _current_index() if _current_index is not None else 0


def of_process() -> tuple[Chip, ...]:
    """The chips that this process simulates, in the order of their indices: the active one, or what TAPEOUT_CHIPS says.

    Raises ChipError for a value of it that is neither a number nor a list of chips.
    """
    if _several:
        return tuple(chip for chip, _ in _several)
    names = _list_of_chips()
    if isinstance(names, int):
        return (active(),) * names
    return (active(), *map(load, names[1:]))


def _list_of_chips() -> int | list[str]:
    """How many equal chips TAPEOUT_CHIPS asks for, or their names."""
    return _read_list((os.environ.get(CHIPS_VARIABLE) or "1").strip())


@functools.cache
def _read_list(given: str) -> int | list[str]:
    names = [name.strip() for name in given.split(",")]
    is_number = re.fullmatch(r"[+-]?\d+", given) is not None
    count = int(given) if is_number else len(names)
    if not (1 <= count <= MOST_CHIPS and all(names)):
        raise ChipError(
            f"{CHIPS_VARIABLE}={given!r} is neither a number of chips, 1 to {MOST_CHIPS}, nor a list of as many names, "
            "such as training,training,inference"
        )
    return count if is_number else names


def begin_to_use(current_index: Callable[[], int]) -> None:
    """Keep the chips that the process has, from now on. `current_index`: which of them is the current thread's."""
    global _several, _current_index
    if len(found := of_process()) > 1:
        _several = tuple((chip, _serials.setdefault(chip, len(_serials))) for chip in found)
        _current_index = current_index


def _make_active(chip: Chip) -> None:
    global _active, _serial
    _active, _serial = chip, _serials.setdefault(chip, len(_serials))


def named() -> str:
    """The chip's name or file that TAPEOUT_CHIPS or TAPEOUT_CHIP gives, else the default."""
    names = _list_of_chips()
    if not isinstance(names, int):
        return names[0]
    return os.environ.get(CHIP_VARIABLE) or DEFAULT_CHIP


def activate(chip: Chip | str | os.PathLike[str]) -> Chip:
    """Make a chip (or the one of that name or file) the active one, and return it.

    Raises ChipError while the device holds memory: its addresses and kernels belong to the chip before. Raises it too
    for another chip than the first of a list in TAPEOUT_CHIPS, and for another once several are in use.
    """
    chosen = chip if isinstance(chip, Chip) else load(chip)
    names = _list_of_chips()
    if not isinstance(names, int) and chosen != load(names[0]):
        raise ChipError(
            f"cannot activate {chosen.name!r}: {CHIPS_VARIABLE}={','.join(names)} names this process's chips; "
            "unset it, or list the chip there"
        )
    if _several and chosen != _several[0][0]:
        raise ChipError(f"cannot activate {chosen.name!r}: the {len(_several)} chips of this process are in use")
    if _active is not None and chosen != _active:
        for refusal in _refusals:
            if reason := refusal():
                raise ChipError(
                    f"cannot activate {chosen.name!r}: {reason}. Activate a chip before the first tensor, "
                    f"or set {CHIP_VARIABLE}={chosen.name}"
                )
    _make_active(chosen)
    return chosen


def refuse_activation_while(reason: Callable[[], str | None]) -> None:
    """Let a later stage veto a change of chip: `reason()` gives a clause ("12 MiB are in use") or None."""
    _refusals.append(reason)
