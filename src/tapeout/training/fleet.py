"""Fleets: cards of one or several kinds, the node and network around each, and the software they run.

Takes words such as `H100:8192` or `training@rail10k:2048`; gives a `Fleet` of `Cards`. A kind is an `Accelerator`, own
chips too; its topology is a `Cluster` of levels. Of a chip that one can buy it is a node and a network of cards
(`data/platforms.toml`), unless a cluster is named.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from tapeout import cluster as clusters
from tapeout.accelerator import Accelerator
from tapeout.cluster import Cluster, Level, Protocol
from tapeout.figures import Estimate, Provenance, given
from tapeout.models import parameters
from tapeout.models.questions import own_parameters
from tapeout.models.timers import Timer
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator
from tapeout.training.collectives import Network
from tapeout.training.problems import TrainingError
from tapeout.training.software import SoftwareEra, era_called


@dataclass(frozen=True, kw_only=True)
class Cards:
    """`count` cards of a kind. `name` is the word that plans use for it. `topology`: its levels, innermost first.

    `efficiency`: share of the rate of links that sums get, `gather_efficiency` other collectives; `fabric_efficiency`:
    of the network's; `ramp_s`: as in `collectives.Network`. `clock`: sustained clock over that of the measured chip of
    the same die, beyond what peaks say.
    """

    name: str
    chip: Accelerator
    count: int
    topology: Cluster
    software: SoftwareEra
    efficiency: Estimate
    fabric_efficiency: Estimate
    timer: Timer = field(compare=False, repr=False)
    gather_efficiency: float = 0.0
    ramp_s: float = 0.0
    clock: float = 1.0

    @property
    def network(self) -> Network:
        """What joins the cards, as collectives see it."""
        return Network(
            self.topology, self.efficiency.value, self.fabric_efficiency.value, self.gather_efficiency, self.ramp_s
        )

    @property
    def node(self) -> int:
        """Cards of the innermost level."""
        return self.topology.levels[0].size or self.count

    @property
    def fabric(self) -> Level:
        """The level that joins all cards, and other kinds."""
        return self.topology.levels[-1]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Cards of every kind, by name. All kinds share the outermost network."""

    cards: tuple[Cards, ...]

    def __post_init__(self) -> None:
        names = [each.name for each in self.cards]
        if not names:
            raise TrainingError("a fleet has at least one kind of card, as in H100:8192")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TrainingError(f"the fleet names {twice} twice; add the counts up")

    def __getitem__(self, name: str) -> Cards:
        for each in self.cards:
            if each.name == name:
                return each
        raise TrainingError(f"the fleet has no {name!r}; it has {', '.join(each.name for each in self.cards)}")

    @property
    def count(self) -> int:
        return sum(each.count for each in self.cards)


def fleet_of(
    text: str | Sequence[str],
    *,
    software: str = "",
    own_catalog: Path | None = None,
    assume: bool = False,
) -> Fleet:
    """The fleet that words name: `kind:count` or `kind@cluster:count`, several separated by commas.

    `assume` takes the class's usual value for figures nobody published. Raises TrainingError, ChipError, CatalogError.
    """
    words = text.split(",") if isinstance(text, str) else list(text)
    return Fleet(
        cards=tuple(
            _cards(word.strip().strip("\"'"), software=software, own_catalog=own_catalog, assume=assume)
            for word in words
            if word.strip()
        )
    )


def _cards(word: str, *, software: str, own_catalog: Path | None, assume: bool) -> Cards:
    kind, is_counted, count = word.rpartition(":")
    kind = kind.strip().strip("\"'")
    if not is_counted or not count.strip().replace("_", "").isdigit() or int(count) < 1 or not kind:
        raise TrainingError(f"cards are written kind:count, as in H100:8192, not {word!r}")
    kind, _, named = kind.partition("@")
    chip = _chip(kind, own_catalog)
    joined = clusters.load(named) if named else None
    return cards_of(chip, int(count), name=kind, joined=joined, software=software, assume=assume)


def cards_of(
    chip: Accelerator,
    count: int,
    *,
    name: str = "",
    joined: Cluster | None = None,
    software: str = "",
    assume: bool = False,
    nic_bytes_per_s: float | None = None,
    node: int | None = None,
) -> Cards:
    """Cards of a kind with the platform they are sold on, or those figures of it that are given."""
    platform = _platform(chip.name)
    fabric = _platforms()["fabric"]
    if joined is None:
        joined = _usual(chip, platform, nic_bytes_per_s, node)
    joined.check_ranks(count)
    own = chip.design is not None
    efficiency = platform["link_efficiency"] if not own else max(each.efficiency for each in joined.protocols)
    return Cards(
        name=name or chip.name,
        chip=chip,
        count=count,
        topology=joined,
        software=era_called(software or ("graph" if own else DEFAULT_ERA)),
        efficiency=given(
            f"share of link rate ({chip.name})",
            efficiency,
            "",
            Provenance.DEFINED if own else Provenance.named(platform["link_provenance"]),
            "the cluster's protocol" if own else platform["link_source"],
            low=efficiency * 0.9,
            high=min(efficiency * 1.1, 1.0),
        ),
        fabric_efficiency=given(
            "share of network rate",
            fabric["efficiency"],
            "",
            Provenance.ASSUMED,
            fabric["source"],
            low=fabric["efficiency_low"],
            high=fabric["efficiency_high"],
        ),
        timer=_timer(_Identity(chip), assume),
        gather_efficiency=0.0 if own else platform.get("gather_efficiency", GATHER_SHARE * efficiency),
        ramp_s=0.0 if own else platform["ramp_us"] * 1e-6,
        clock=_clock(chip, platform),
    )


def _clock(chip: Accelerator, platform: Mapping[str, Any]) -> float:
    """Sustained clocks go with the square root of power: between a linear law of frequency alone and the cube root of
    frequency and voltage."""
    if "silicon" not in platform or chip.tdp is None:
        return 1.0
    measured = _known_chip(platform["silicon"], None)
    if measured.tdp is None:
        return 1.0
    peaks = chip.require("half_tflops").value / measured.require("half_tflops").value
    return float((chip.tdp.value / measured.tdp.value) ** 0.5 / peaks)


@cache
def _known_chip(kind: str, own_catalog: Path | None) -> Accelerator:
    return accelerator(kind, technology.load(), own_catalog=own_catalog)


def _chip(kind: str, own_catalog: Path | None) -> Accelerator:
    """The chip of that name; a file is read anew, for it may have changed."""
    if Path(kind).suffix or own_catalog is not None:
        return accelerator(kind, technology.load(), own_catalog=own_catalog)
    return _known_chip(kind, own_catalog)


@dataclass(frozen=True, eq=False)
class _Identity:
    """A chip as a key: figures have no order, so a chip is equal to itself alone."""

    chip: Accelerator

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.chip is self.chip

    def __hash__(self) -> int:
        return id(self.chip)


@lru_cache(maxsize=64)
def _timer(of: _Identity, assume: bool) -> Timer:
    """The operator models of a chip; of one that was not measured, those of a chip of the same die."""
    own = own_parameters()
    sibling = _platform(of.chip.name).get("silicon")
    measured = {each.chip for each in parameters.shipped().values()}
    if sibling and of.chip.name not in measured:
        own += tuple(
            replace(each, chip=of.chip.name)
            for each in parameters.shipped().values()
            if each.chip == sibling and each.framework != "trtllm"
        )
    return Timer(chip=of.chip, own=own, assume=assume)


GATHER_SHARE = 0.85
"""Rate of gathers over that of sums where only the latter is known: between A100 (0.88) and H100 (0.75)."""
DEFAULT_ERA = "megatron-2024"


@cache
def _platforms() -> dict[str, dict[str, Any]]:
    path = resources.files("tapeout.training") / "data" / "platforms.toml"
    return tomllib.loads(path.read_text("utf-8"))


def _platform(chip_name: str) -> Mapping[str, Any]:
    known = _platforms()
    return known["default"] | known.get(chip_name, {})


def _usual(chip: Accelerator, platform: Mapping[str, Any], nic_bytes_per_s: float | None, node: int | None) -> Cluster:
    """A node of cards on their links and a network of nodes."""
    fabric = _platforms()["fabric"]
    rate = chip.links.rate
    domain = chip.links.domain_size
    size = node or ("node" in _platforms().get(chip.name, {}) and platform["node"])
    size = size or (int(domain.value) if domain is not None else platform["node"])
    nic = nic_bytes_per_s or platform["nic_gb_per_s"] * 1e9
    inside = rate.to("B/s").value if rate is not None else platform.get("link_gb_per_s", nic / 1e9) * 1e9
    levels = [
        Level(
            name="node",
            size=max(size, 1),
            fabric="switch",
            bytes_per_s=int(inside),
            latency_ns=round(fabric["link_latency_us"] * 1000),
        ),
        Level(
            name="network",
            size=0,
            fabric="switch",
            bytes_per_s=int(min(nic, inside)),
            latency_ns=round(fabric["latency_us"] * 1000),
        ),
    ]
    if size <= 1:
        levels = levels[1:]
    return Cluster(
        name=f"{chip.name}: node and network",
        levels=tuple(levels),
        protocols=(Protocol(name="library", base_ns=10_000, step_ns=0, efficiency=1.0),),
    )
