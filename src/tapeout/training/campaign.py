"""A whole run: days, energy and dollars for a number of tokens, with failures.

Takes a `Step` and a `Reliability`; gives what the run takes. Energy is the all-in power of every card for the time;
dollars are the owner's cost of every card (`tapeout.silicon.ownership`), None where no price is known.
"""

from dataclasses import dataclass

from tapeout.accelerator import MissingFigure
from tapeout.figures import Estimate, Provenance, number
from tapeout.silicon import technology
from tapeout.silicon.ownership import Site, ownership
from tapeout.training.goodput import Reliability, closed_form
from tapeout.training.prediction import Step
from tapeout.training.problems import TrainingError


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """`unknown`: why power or cost is not known."""

    tokens: float
    goodput: Estimate
    days: Estimate
    energy: Estimate | None
    cost: Estimate | None
    unknown: tuple[str, ...] = ()


def campaign(step: Step, tokens: float, reliability: Reliability) -> Campaign:
    """Time, energy and cost of training on so many tokens."""
    if tokens <= 0:
        raise TrainingError(f"a run of {tokens:g} tokens; it is more than 0")
    kept = closed_form(reliability)
    time = (step.time * number(tokens / step.plan.tokens) / kept).to("day")
    time = time.called("run time", provenance=Provenance.MODELLED)
    energy: Estimate | None = number(0, "MWh")
    cost: Estimate | None = number(0, "USD")
    unknown = []
    figures = technology.load()
    for kind, count in step.plan.cards.items():
        try:
            owned = ownership(step.fleet[kind].chip, Site(chip_count=count), figures)
        except MissingFigure as missing:
            cost = energy = None
            unknown.append(str(missing))
            continue
        if energy is not None and cost is not None:
            energy = energy + (owned.all_in * time * float(count)).to("MWh")
            cost = cost + (owned.per_hour * time * float(count)).to("USD")
    return Campaign(
        tokens=tokens,
        goodput=kept,
        days=time,
        energy=energy.called("energy") if energy is not None else None,
        cost=cost.called("cost of owning the cards") if cost is not None else None,
        unknown=tuple(unknown),
    )
