"""Dies on a wafer, yield, the cost of a good packaged chip, and the price at a volume and a margin.

    dies per wafer = pi (d/2)^2 / A - pi d / sqrt(2 A)          d: wafer diameter, A: die area
    yield          = mean over L of exp(-L R) P(at most s of n cores are bad, each with 1 - exp(-L C / n))
    price          = cost / (1 - margin) + development / volume

L is the density of defects around a die, gamma distributed with mean D0 and shape a; R and C are the areas outside and
in the n cores, s of them spare, without what spare rows repair. With no spares that is the negative binomial
(1 + D0 (R + C) / a)^-a.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapeout.figures import Estimate, Provenance, computed, number, total
from tapeout.silicon.area import vulnerable_areas
from tapeout.silicon.die import Die
from tapeout.silicon.technology import SiliconError, Technology, UnknownFigure


@dataclass(frozen=True, kw_only=True)
class Manufacturing:
    """Cost of making and price of one good packaged chip."""

    dies_per_wafer: Estimate
    yielded: Estimate
    cost: Estimate
    development_per_chip: Estimate
    price: Estimate
    volume: int


class UnknownCost(UnknownFigure):
    """Some parts of a chip's cost have no known price. `known` are the parts that have one."""

    def __init__(self, gaps: Sequence[UnknownFigure], known: Sequence[Estimate]):
        super().__init__(gaps[0].name)
        self.gaps = tuple(gap.name for gap in gaps)
        self.known = tuple(known)


def dies_per_wafer(area: Estimate, technology: Technology) -> Estimate:
    """Whole dies on a round wafer."""
    return computed(
        "die/wafer",
        lambda mm2, d: np.maximum(np.pi * (d / 2) ** 2 / mm2 - np.pi * d / np.sqrt(2 * mm2), 0.0),
        area.to("mm²"),
        technology["wafer_diameter"].to("mm"),
    ).called("dies per wafer", provenance=Provenance.MODELLED)


def die_yield(die: Die, cores: Estimate, rest: Estimate, technology: Technology) -> Estimate:
    """Share of dies with enough good cores and no defect outside them. `cores` and `rest` are areas of one die (or of a
    whole wafer that is not cut) where a defect kills, in all its cores together and outside them."""
    dies = 1 if die.is_wafer else die.die_count
    core_count, spare_count = die.core_count // dies, die.spare_core_count // dies
    spares = "no spare cores" if spare_count == 0 else f"{spare_count} of {core_count} cores spare"
    return computed(
        "",
        lambda *figures: _yield(core_count, spare_count, *figures),
        cores.to("mm²"),
        rest.to("mm²"),
        technology[f"defect_density.{die.process_node}"],
        technology["defect_clustering"],
    ).called("yield", provenance=Provenance.MODELLED, bound=f"defects in logic, {spares}")


FEW_SPARES = 16

_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(64)


def _yield(
    core_count: int, spare_count: int, cores_mm2: Any, rest_mm2: Any, defects_per_cm2: Any, clustering: Any
) -> Any:
    """Arguments may be arrays of samples. The mean over densities is Gauss-Laguerre's."""
    cores, rest, mean, shape = (
        np.asarray(v, float)[..., None] for v in (cores_mm2, rest_mm2, defects_per_cm2, clustering)
    )
    density = _NODES * mean / shape / 100
    log_weights = np.log(_WEIGHTS) + (shape - 1) * np.log(_NODES) - np.vectorize(math.lgamma)(shape)
    good = np.exp(-density * cores / core_count)
    if spare_count <= FEW_SPARES:
        enough = sum(
            math.comb(core_count, bad) * (1 - good) ** bad * good ** (core_count - bad)
            for bad in range(spare_count + 1)
        )
    else:  # the same sum, each term from the one before
        term = good**core_count
        enough, odds = term.copy(), (1 - good) / good
        for bad in range(spare_count):
            term *= odds
            term *= (core_count - bad) / (bad + 1)
            enough += term
    return (np.exp(log_weights - density * rest) * enough).sum(-1)


def check_reticle(die: Die, area: Estimate, technology: Technology) -> None:
    """Raise SiliconError for a die that no scanner exposes at once, or a wafer's fields that no wafer holds. `area` is
    that of all dies together."""
    if die.is_wafer:
        side = technology["wafer_diameter"].to("mm").value / math.sqrt(2)
        if area.value > side**2:
            raise SiliconError(
                f"{area.value:,.0f} mm² do not fit into the square of a wafer, {side**2:,.0f} mm²; describe fewer "
                "cores or less memory, or a denser process node"
            )
    limit = technology["reticle"].to("mm²")
    if area.value / die.die_count > limit.value:
        if die.die_count > 1:
            raise SiliconError(
                f"each of {die.die_count} dies of {area.value / die.die_count:.0f} mm² is larger than the reticle, "
                f"{limit.value:.0f} mm²; describe more dies, fewer cores or less memory, or a denser process node"
            )
        raise SiliconError(
            f"a die of {area.value:.0f} mm² is larger than the reticle, {limit.value:.0f} mm²; "
            "describe fewer cores or less memory, or a denser process node"
        )


def manufacture(die: Die, area: Estimate, technology: Technology, *, volume: int) -> Manufacturing:
    """Cost and price. Raises SiliconError for a die beyond the reticle, UnknownFigure where a price is not known."""
    if volume < 1:
        raise SiliconError(f"volume={volume} chips; the least is 1")
    check_reticle(die, area, technology)
    cut = 1 if die.is_wafer else die.die_count
    if die.is_wafer:
        gross = number(1, "die/wafer").called("chips per wafer")
    else:
        gross = dies_per_wafer(area / cut if cut > 1 else area, technology)

    def good() -> Estimate:
        cores, rest = vulnerable_areas(die, area, technology)
        if cut > 1:
            cores, rest = cores / cut, rest / cut
        return die_yield(die, cores, rest, technology)

    def dram() -> Estimate:
        price = die.memory_usd_per_gb
        each = technology[f"dram_price.{die.memory_kind}"] if price is None else number(price, "USD/GB")
        return number(die.memory_bytes / 1e9, "GB") * each

    logic = "logic die" if cut == 1 else f"{cut} logic dies"
    parts: dict[str, Callable[[], Estimate]] = {
        logic: lambda: technology[f"wafer_price.{die.process_node}"] / (gross * good()) * number(cut, "die"),
    }
    if die.has_dram:
        parts[f"memory, {die.memory_kind}"] = dram
    if die.is_wafer:
        parts["package of a wafer"] = lambda: technology["package_price.wafer"]
    elif die.memory_place == "stacked":
        parts["bonding the DRAM"] = lambda: area * technology["package_price.bonded"]
        parts["package"] = lambda: area * technology["package_price.organic"]
    elif die.has_hbm:
        parts["package and interposer"] = lambda: (
            (area + die.memory_stack_count * technology["hbm_footprint"]) * technology["package_price.interposer"]
        )
    else:  # memory in packages of its own, beside this one on the board
        parts["package"] = lambda: area * technology["package_price.organic"]
    made, gaps = [], []
    for name, of_part in parts.items():
        try:
            grade = Provenance.MODELLED if name == logic else Provenance.DEFINED
            made.append(of_part().to("USD").called(name, provenance=grade))
        except UnknownFigure as gap:
            gaps.append(gap)
    if gaps:
        raise UnknownCost(gaps, made)
    subtotal = total("before test", made)
    test = (subtotal * technology["test_and_substrate_share"]).called("test and substrate")
    cost = total("cost of a good packaged chip", [*made, test])
    development = (technology[f"development_cost.{die.process_node}"] / volume).to("USD")
    development = development.called(f"development over {volume:,} chips")
    margin = (cost * technology["gross_margin"] / (1 - technology["gross_margin"])).called("partner's margin")
    return Manufacturing(
        dies_per_wafer=gross,
        yielded=good(),
        cost=cost,
        development_per_chip=development,
        price=total("price", [cost, margin, development]),
        volume=volume,
    )
