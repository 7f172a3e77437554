"""The figures fitted to published dies, and how far the model is from the others.

Four figures of the technology file are fitted, two for area and two for power, to the two chips that the table of
published dies marks; every other chip is a check. `fit` computes them again, `rows` compares, `render` writes
docs/calibration.md. A test keeps file, fit and page together.
"""

from dataclasses import dataclass, replace

import numpy as np

from tapeout.figures import Estimate, number, total
from tapeout.silicon.activity import at_tdp
from tapeout.silicon.area import die_area, interfaces
from tapeout.silicon.die import PublishedDie, published_dies
from tapeout.silicon.manufacturing import manufacture
from tapeout.silicon.power import power
from tapeout.silicon.technology import Technology, load

AREA_TOLERANCE = 0.20
POWER_TOLERANCE = 0.30
COST_TOLERANCE = 0.30
FITTED = ("block_area.core_control", "block_area.overhead", "power.activity_overhead", "power.clock_density")


@dataclass(frozen=True)
class Comparison:
    """Model against publication for one quantity of one chip. `error` is relative to the published figure."""

    published: float
    modelled: Estimate
    tolerance: float
    is_bound: bool = False

    @property
    def error(self) -> float:
        return self.modelled.value / self.published - 1

    @property
    def holds(self) -> bool:
        """Within tolerance; for a published upper bound, not above it."""
        return self.error <= 0 if self.is_bound else abs(self.error) <= self.tolerance


@dataclass(frozen=True)
class Row:
    published: PublishedDie
    area: Comparison | None
    power: Comparison | None


def fit(technology: Technology | None = None) -> dict[str, float]:
    """The fitted figures, by least squares of relative errors over the chips that calibrate."""
    technology = technology or load()
    chips = [each for each in published_dies() if each.calibrates]
    with_control, without_control, published_areas = [], [], []
    for each in chips:
        control = _with(technology, {"block_area.core_control": 1.0, "block_area.overhead": 1.0})
        blocks = {part.name: part.value for part in die_area(each.die, control).parts}
        outside = sum(part.value for part in interfaces(each.die, technology))
        cores = blocks["cores: control, DMA, network"]
        with_control.append(cores)
        without_control.append(sum(blocks.values()) - outside - cores)
        published_areas.append(_known(each.area_mm2) - outside)
    # area - interfaces = overhead x (rest + control x cores): linear in overhead and overhead x control.
    scale = 1 / np.array([_known(each.area_mm2) for each in chips])
    overhead, product = _least_squares([without_control, with_control], published_areas, scale)
    activity, clock, rest = [], [], []
    for each in chips:
        unit = _with(technology, {"power.activity_overhead": 1.0, "power.clock_density": 1.0})
        watts = power(at_tdp(each.die), each.die, number(_known(each.area_mm2), "mm²"), unit)
        parts = {part.name: part.value for part in watts.parts}
        on_die = sum(parts[name] for name in ("matrix engines", "scratchpads", "last-level SRAM and network"))
        activity.append(on_die)
        clock.append(parts["clock and control"])
        rest.append(_known(each.tdp_w) - (sum(parts.values()) - on_die - parts["clock and control"]))
    scale = 1 / np.array([_known(each.tdp_w) for each in chips])
    activity_overhead, clock_density = _least_squares([activity, clock], rest, scale)
    return {
        "block_area.core_control": product / overhead,
        "block_area.overhead": overhead,
        "power.activity_overhead": activity_overhead,
        "power.clock_density": clock_density,
    }


def rows(technology: Technology | None = None) -> list[Row]:
    """Every published die against the model. Power uses the published area where there is one."""
    technology = technology or load()
    found = []
    for each in published_dies():
        modelled = die_area(each.die, technology)
        area = each.area_mm2 and Comparison(each.area_mm2, modelled, AREA_TOLERANCE, each.area_is_bound)
        watts = power(
            at_tdp(each.die), each.die, number(each.area_mm2, "mm²") if each.area_mm2 else modelled, technology
        )
        found.append(Row(each, area or None, (each.tdp_w and Comparison(each.tdp_w, watts, POWER_TOLERANCE)) or None))
    return found


PUBLISHED_COST_USD = 3320.0
"""Cost to make an H100: Raymond James, via siliconanalysts.com (2026) and Epoch, an estimate of others."""


def cost_check() -> Comparison:
    """The cost of an H100 by our model, on its published area, against what others estimate."""
    technology = load()
    h100 = next(each for each in published_dies() if each.die.name == "H100")
    area = die_area(h100.die, technology)
    share = number(_known(h100.area_mm2) / area.value)
    measured = total("die area", [(part * share).called(part.name) for part in area.parts])
    made = manufacture(h100.die, measured, technology, volume=1)
    return Comparison(PUBLISHED_COST_USD, made.cost, COST_TOLERANCE)


def render() -> str:
    """docs/calibration.md."""
    checked = [row for row in rows() if not row.published.calibrates]
    areas = [row.area for row in checked if row.area and not row.area.is_bound]
    powers = [row.power for row in checked if row.power]
    fitted = fit()
    cost = cost_check()
    lines = [
        "# Calibration of area and power",
        "",
        "Generated by `tapeout calibration --output docs/calibration.md` from the model, `technology.toml` and "
        "`published_dies.csv` in `src/tapeout/silicon/`. How the model works: "
        "[decision record](decisions/silicon-model.md).",
        "",
        f"Of the chips that took no part in the fit, {sum(c.holds for c in areas)} of {len(areas)} published die areas "
        f"are met within {AREA_TOLERANCE:.0%} and {sum(c.holds for c in powers)} of {len(powers)} published powers "
        f"within {POWER_TOLERANCE:.0%}. Ranges are the middle 90 % of samples of the model's inputs.",
        "",
        "## Fitted figures",
        "",
        "| figure | value | unit |",
        "|---|---:|---|",
        *(f"| `{name}` | {value:.4g} | {load()[name].unit} |" for name, value in fitted.items()),
        "",
        "## Die area",
        "",
        "| chip | node | published, mm² | modelled, mm² | range | error | |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_line(row, row.area, "area") for row in rows() if row.area),
        "",
        '"<" marks an upper bound ("below 400 mm²"): the model may only be below it.',
        "",
        "## Power at TDP",
        "",
        "| chip | node | published, W | modelled, W | range | error | |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_line(row, row.power, "power") for row in rows() if row.power),
        "",
        "A TDP is a limit a vendor chose, so two products with one die may differ more than their work does.",
        "",
        "## Cost",
        "",
        f"To make an H100 on its published area: modelled {cost.modelled.value:,.0f} USD "
        f"({cost.modelled.interval()[0]:,.0f} to {cost.modelled.interval()[1]:,.0f}); estimated by others "
        f"{cost.published:,.0f} USD (Raymond James): {cost.error:+.0%}. "
        + ", ".join(f"{part.name} {part.value:,.0f}" for part in cost.modelled.parts)
        + ". The package price was taken from the same chip, so only the sum and the logic die are "
        "checks; theirs has 300 for that.",
        "",
        "## What is known of each die",
        "",
        "| chip | source |",
        "|---|---|",
        *(f"| {row.published.die.name} | {row.published.source} |" for row in rows()),
        "",
    ]
    return "\n".join(lines)


def _line(row: Row, comparison: Comparison, what: str) -> str:
    low, high = comparison.modelled.interval()
    bound = "< " if comparison.is_bound else ""
    if row.published.calibrates:
        verdict = "fitted"
    elif comparison.is_bound:
        verdict = "consistent" if comparison.holds else "**above the bound**"
    elif comparison.holds:
        verdict = "holds"
    else:
        about, _, reason = row.published.remark.partition(": ")
        why = reason if what in about.split(" and ") else "not explained"
        verdict = f"**misses**: {why}"
    error = "" if comparison.is_bound else f"{comparison.error:+.0%}"
    return (
        f"| {row.published.die.name} | {row.published.die.process_node} | {bound}{comparison.published:.0f} "
        f"| {comparison.modelled.value:.0f} | {low:.0f} to {high:.0f} | {error} | {verdict} |"
    )


def _with(technology: Technology, values: dict[str, float]) -> Technology:
    return technology.replacing(
        {name: replace(technology[name], nominal=value, low=value, high=value) for name, value in values.items()}
    )


def _known(value: float | None) -> float:
    assert value is not None, "a chip that calibrates has a published area and power"
    return value


def _least_squares(columns: list[list[float]], wanted: list[float], scale: np.ndarray) -> tuple[float, float]:
    matrix = np.array(columns).T * scale[:, None]
    solution, *_ = np.linalg.lstsq(matrix, np.array(wanted) * scale, rcond=None)
    return float(solution[0]), float(solution[1])
