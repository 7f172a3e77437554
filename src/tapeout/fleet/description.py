"""A fleet as its file says it: sites, kinds of cards, workloads.

Takes a TOML file, gives a frozen `Fleet`. Every value is checked here; a mistake is one sentence with the file and the
entry. What a card costs or draws where the file leaves it out is answered in `columns`.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tapeout.chip.description import shown_path
from tapeout.errors import TapeoutError


class FleetError(TapeoutError, ValueError):
    """A fleet that contradicts itself, or work that it cannot place; the message says what would do."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A site: the power its cards may draw together (None: no limit), the tariff, and tags of the place."""

    name: str
    power_kw: float | None = None
    usd_per_kwh: float = 0.08
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Cards of one chip at one site. `usd_per_h` is a card's cost without power, `power_kw` its draw with its share of
    the server and the cooling; None: by the model of ownership."""

    name: str
    count: int
    chip: str = ""
    site: str = "site"
    cards_per_node: int = 8
    usd_per_h: float | None = None
    power_kw: float | None = None
    tags: tuple[str, ...] = ()
    resource: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Fields of every workload. Empty `kinds` and `sites` allow all; `needs` and `refuses` are tags of either."""

    name: str
    kinds: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    image: str = ""
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Serve(Workload):
    """Requests of a language model, arriving at random. The bounds hold for 99 % of first tokens (`ttft_ms`) and for
    the mean time between later ones (`tpot_ms`)."""

    model: str
    requests_per_s: float
    input_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float
    dtype: str = "bfloat16"
    cache_dtype: str = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Rank(Workload):
    """Ranking queries of `candidates` rows each, arriving at random; 99 % are answered within `p99_ms`."""

    model: str
    queries_per_s: float
    p99_ms: float
    candidates: int = 256


@dataclass(frozen=True, kw_only=True)
class Train(Workload):
    """A training run of `tokens` that must end within `deadline_days`. `flop_share` is the share of the bfloat16 peak
    it reaches, work lost to stops included."""

    model: str
    tokens: float
    deadline_days: float
    flop_share: float = 0.35


@dataclass(frozen=True, kw_only=True)
class Fleet:
    sites: tuple[Place, ...]
    kinds: tuple[Kind, ...]
    workloads: tuple[Workload, ...]

    def site_of(self, kind: Kind) -> Place:
        return next(site for site in self.sites if site.name == kind.site)

    def allows(self, workload: Workload, kind: Kind) -> str:
        """Return why the workload may not run on the kind, or nothing."""
        site = self.site_of(kind)
        tags = {*kind.tags, *site.tags}
        if workload.kinds and kind.name not in workload.kinds:
            return "is not among its kinds"
        if workload.sites and site.name not in workload.sites:
            return f"stands at {site.name}, which is not among its sites"
        if missing := [tag for tag in workload.needs if tag not in tags]:
            return f"lacks the tag {missing[0]!r}"
        if wrong := [tag for tag in workload.refuses if tag in tags]:
            return f"has the tag {wrong[0]!r}, which it refuses"
        return ""


_TYPES: dict[str, type[Workload]] = {"serve": Serve, "rank": Rank, "train": Train}


def load(path: Path) -> Fleet:
    """Read a fleet's file. Raises FleetError."""
    where = shown_path(str(path))
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"{where}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise FleetError(f"{where}: is not TOML: {error}") from None
    try:
        return _fleet(data)
    except FleetError as error:
        raise FleetError(f"{where}: {error}") from None


def _fleet(data: dict[str, Any]) -> Fleet:
    _known("the file", data, ("sites", "kinds", "workloads", "defaults"))
    if not isinstance(data.get("sites", {}), dict):
        raise FleetError("sites: write each as a table, [sites.NAME]")
    sites = [
        _made(Place, {"name": name, **_table(table, f"sites.{name}")}) for name, table in data.get("sites", {}).items()
    ]
    kinds = [_made(Kind, {"site": sites[0].name, **table} if sites else table) for table in _tables(data, "kinds")]
    sites = sites or [Place(name="site")]
    defaults = _table(data.get("defaults", {}), "defaults")
    workloads = [_workload(table, defaults) for table in _tables(data, "workloads")]
    for what, entries in (("kinds", kinds), ("workloads", workloads)):
        if not entries:
            raise FleetError(f"no {what}: add at least one table [[{what}]]")
        names = [each.name for each in entries]
        if twice := [name for name in names if names.count(name) > 1]:
            raise FleetError(f"{what}: {twice[0]!r} stands twice; give each a name of its own")
    fleet = Fleet(sites=tuple(sites), kinds=tuple(kinds), workloads=tuple(workloads))
    for kind in kinds:
        _one_of(f"kinds.{kind.name}: site", kind.site, [site.name for site in sites])
    for workload in workloads:
        for name in workload.kinds:
            _one_of(f"workloads.{workload.name}: kinds", name, [kind.name for kind in kinds])
        for name in workload.sites:
            _one_of(f"workloads.{workload.name}: sites", name, [site.name for site in sites])
    return fleet


def _tables(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise FleetError(f"{name}: write each as a table, [[{name}]]")
    return found


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FleetError(f"{place} is not a table")
    return value


def _workload(table: dict[str, Any], defaults: dict[str, Any]) -> Workload:
    given = dict(table)
    name = given.get("name", "?")
    kind = given.pop("type", None)
    if kind not in _TYPES:
        raise FleetError(f"workloads.{name}: type={kind!r}; choose from {', '.join(_TYPES)}")
    made = _TYPES[kind]
    takes = {each.name for each in fields(made)}
    workload: Workload = _made(made, {key: value for key, value in defaults.items() if key in takes} | given)
    return workload


def _made(kind: type[Any], values: dict[str, Any]) -> Any:
    place = f"{'sites' if kind is Place else 'kinds' if kind is Kind else 'workloads'}.{values.get('name', '?')}"
    known = {each.name: each for each in fields(kind)}
    _known(place, values, tuple(known))
    missing = [
        name
        for name, each in known.items()
        if name not in values and each.default is MISSING and each.default_factory is MISSING
    ]
    if missing:
        raise FleetError(f"{place}: {', '.join(missing)} is missing")
    return kind(**{name: _value(place, name, _type_name(known[name].type), value) for name, value in values.items()})


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))


def _value(place: str, name: str, kind: str, value: Any) -> Any:
    """The value as the field's type wants it. Every number of a fleet is positive, but a price may be nothing."""
    if kind == "str":
        if not isinstance(value, str) or not value:
            raise FleetError(f"{place}: {name}={value!r} is not a text")
        return value
    if kind == "tuple":
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise FleetError(f"{place}: {name}={value!r} is not a list of texts")
        return tuple(texts)
    if kind == "Mapping":
        table = _table(value, f"{place}: {name}")
        return MappingProxyType({key: str(each) for key, each in table.items()})
    whole = kind == "int"
    least = 0.0 if name.startswith("usd") or name == "count" else 1e-12
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value < 1e18 or (whole and value != int(value)):
        wanted = "whole number" if whole else "number"
        raise FleetError(f"{place}: {name}={value!r} is not a {'' if least == 0 else 'positive '}{wanted}")
    return int(value) if whole else float(value)


def _known(place: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise FleetError(f"{place}: unknown field {name!r}{guess}")


def _one_of(place: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise FleetError(f"{place} names {name!r}; the fleet has {', '.join(known)}")
