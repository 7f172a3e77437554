"""Everything the models say of one described chip, gathered."""

from dataclasses import dataclass

from tapeout.chip.description import Chip
from tapeout.figures import Estimate, Provenance, given, notebook, number
from tapeout.silicon.activity import at_tdp, workloads
from tapeout.silicon.area import approximated_transistor_count, die_area, transistor_count
from tapeout.silicon.die import Die, of_chip
from tapeout.silicon.manufacturing import Manufacturing, UnknownCost, manufacture
from tapeout.silicon.plausibility import implausible
from tapeout.silicon.power import power
from tapeout.silicon.technology import SiliconError, Technology


@dataclass(frozen=True)
class Limit:
    """A physical limit: the chip's figure must not exceed it."""

    name: str
    figure: Estimate
    limit: Estimate

    @property
    def holds(self) -> bool:
        return self.figure.value <= self.limit.value

    @property
    def close(self) -> bool:
        """True if the figure's range exceeds a limit that its value keeps."""
        return self.holds and self.figure.interval()[1] > self.limit.value


@dataclass(frozen=True, kw_only=True)
class Datasheet:
    """`manufacturing` is None where it cannot be computed; `no_manufacturing` then says why, and `known_costs` are the
    parts of the cost that have a price."""

    chip: Chip
    die: Die
    area: Estimate
    transistors: Estimate
    approximated_transistors: Estimate
    tdp: Estimate
    workloads: tuple[Estimate, ...]
    limits: tuple[Limit, ...]
    manufacturing: Manufacturing | None
    no_manufacturing: str = ""
    known_costs: tuple[Estimate, ...] = ()
    implausible: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        figures = [self.area, self.transistors, self.tdp, *self.workloads]
        rows = [(each.name, each.in_words(), str(each.provenance)) for each in figures]
        rows += [
            (f"limit: {each.name}", each.limit.in_words(), "holds" if each.holds else "broken") for each in self.limits
        ]
        return notebook.table(f"{self.chip.name}: datasheet", rows, ("figure", "value", "provenance"))

    @property
    def is_sound(self) -> bool:
        """Every limit holds and nothing looks implausible."""
        return all(limit.holds for limit in self.limits) and not self.implausible


def datasheet(chip: Chip, technology: Technology, *, volume: int, margin: float | None = None) -> Datasheet:
    """The models applied to a chip that would be made in that volume and sold at that gross margin, a share of its
    price; without one, at the margin of the technology file."""
    if margin is not None:
        if not 0 <= margin < 1:
            raise SiliconError(f"margin={margin:g} is not a share of the price; 0.55 is 55 %")
        technology = technology.replacing({"gross_margin": given("gross_margin", margin, "", Provenance.DEFINED)})
    die = of_chip(chip)
    area = die_area(die, technology)
    tdp = power(at_tdp(die), die, area, technology).called("TDP", bound="matrix engines, memory and links all at peak")
    manufacturing, reason = None, ""
    known: tuple[Estimate, ...] = ()
    try:
        manufacturing = manufacture(die, area, technology, volume=volume)
    except UnknownCost as error:
        reason, known = f"no figure of {' and '.join(error.gaps)}; add it to a technology file of your own", error.known
    except SiliconError as error:
        reason = str(error)
    return Datasheet(
        chip=chip,
        die=die,
        area=area,
        transistors=transistor_count(die, area, technology),
        approximated_transistors=approximated_transistor_count(die, area, technology),
        tdp=tdp,
        workloads=tuple(power(activity, die, area, technology) for activity in workloads(chip, die)),
        limits=tuple(_limits(die, area, tdp, technology)),
        manufacturing=manufacturing,
        no_manufacturing=reason,
        known_costs=known,
        implausible=tuple(implausible(chip, technology)),
    )


def _limits(die: Die, area: Estimate, tdp: Estimate, technology: Technology) -> list[Limit]:
    each = area if die.die_count == 1 else (area / die.die_count).called("area of one die")
    limits = [
        Limit("die against the reticle", each, technology["reticle"]),
        Limit("power density", (tdp / area).called("power density"), technology["power_density_limit"]),
    ]
    if die.has_hbm:
        beside_one = number(die.memory_stack_count / die.die_count)
        limits.append(Limit("stacks beside one die", beside_one, technology["stacks_beside_die"]))
        per_stack = number(die.memory_bytes_per_s / 1e9 / die.memory_stack_count, "GB/s")
        figure = f"stack_bandwidth.{die.memory_kind}"
        if figure in technology.figures:
            limits.append(Limit(f"bandwidth of a stack of {die.memory_kind}", per_stack, technology[figure]))
    return limits


def assumptions(*figures: Estimate) -> list[Estimate]:
    """The inputs of some figures that are neither measured nor published, by name."""
    found = {
        name: item
        for figure in figures
        for name, item in figure.inputs.items()
        if item.provenance >= Provenance.MODELLED
    }
    return [found[name] for name in sorted(found)]
