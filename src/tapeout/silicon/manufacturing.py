"""Dies on a wafer, yield, the cost of a good packaged chip, and the price at a volume and a margin.

    dies per wafer = pi (d/2)^2 / A - pi d / sqrt(2 A)          d: wafer diameter, A: die area
    yield          = (1 + D0 (A - r M) / a)^-a                  M: memory area, r: share of it that can be repaired
    price          = cost / (1 - margin) + development / volume

Yield is a negative binomial. Spare cores are not modelled: every core must work.
"""

from dataclasses import dataclass

import numpy as np

from tapeout.estimate import Estimate, Provenance, computed, number, total
from tapeout.silicon.area import memory_area
from tapeout.silicon.die import Die
from tapeout.silicon.technology import SiliconError, Technology


@dataclass(frozen=True, kw_only=True)
class Manufacturing:
    """What one good packaged chip costs to make and to buy."""

    dies_per_wafer: Estimate
    yielded: Estimate
    cost: Estimate
    development_per_chip: Estimate
    price: Estimate
    volume: int


def dies_per_wafer(area: Estimate, technology: Technology) -> Estimate:
    """Whole dies on a round wafer."""
    return computed(
        "die/wafer",
        lambda mm2, d: np.maximum(np.pi * (d / 2) ** 2 / mm2 - np.pi * d / np.sqrt(2 * mm2), 0.0),
        area.to("mm²"),
        technology["wafer_diameter"].to("mm"),
    ).called("dies per wafer", provenance=Provenance.MODELLED)


def die_yield(area: Estimate, repairable: Estimate, process_node: str, technology: Technology) -> Estimate:
    """Share of dies without a defect that matters. `repairable` is memory area that spares may heal."""
    return computed(
        "",
        lambda mm2, memory, share, defects, clustering: (
            (1 + (mm2 - share * memory) / 100 * defects / clustering) ** -clustering
        ),
        area.to("mm²"),
        repairable.to("mm²"),
        technology["repairable_memory_share"],
        technology[f"defect_density.{process_node}"],
        technology["defect_clustering"],
    ).called("yield", provenance=Provenance.MODELLED, bound="defects in logic; spare cores are not modelled")


def check_reticle(area: Estimate, technology: Technology) -> None:
    """Raise SiliconError for a die that no scanner exposes at once."""
    limit = technology["reticle"].to("mm²")
    if area.value > limit.value:
        raise SiliconError(
            f"a die of {area.value:.0f} mm² is larger than the reticle, {limit.value:.0f} mm²; "
            "describe fewer cores or less memory, or a denser process node"
        )


def manufacture(die: Die, area: Estimate, technology: Technology, *, volume: int) -> Manufacturing:
    """Cost and price. Raises SiliconError for a die beyond the reticle, UnknownFigure where a price is not known."""
    if volume < 1:
        raise SiliconError(f"volume={volume} chips; the least is 1")
    check_reticle(area, technology)
    gross = dies_per_wafer(area, technology)
    memory = number(die.memory_bytes / 1e9, "GB") * technology[f"dram_price.{die.memory_kind}"]
    good = die_yield(area, memory_area(area), die.process_node, technology)
    if not die.has_hbm:
        raise SiliconError(f"the package of a chip with {die.memory_kind} has no cost model; only HBM on silicon has")
    logic = technology[f"wafer_price.{die.process_node}"] / (gross * good) * number(1, "die")
    footprint = area + die.memory_stack_count * technology["hbm_footprint"]
    made = [
        logic.to("USD").called("logic die", provenance=Provenance.MODELLED),
        memory.to("USD").called(f"memory, {die.memory_kind}"),
        (footprint * technology["package_price"]).to("USD").called("package and interposer"),
    ]
    subtotal = total("before test", made)
    test = (subtotal * technology["test_and_substrate_share"]).called("test and substrate")
    cost = total("cost of a good packaged chip", [*made, test])
    development = (technology[f"development_cost.{die.process_node}"] / volume).to("USD")
    development = development.called(f"development over {volume:,} chips")
    margin = (cost * technology["gross_margin"] / (1 - technology["gross_margin"])).called("partner's margin")
    return Manufacturing(
        dies_per_wafer=gross,
        yielded=good,
        cost=cost,
        development_per_chip=development,
        price=total("price", [cost, margin, development]),
        volume=volume,
    )
