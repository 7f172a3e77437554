"""Questions of those who decide what to build and buy, answered by the models: rates by workload and owner's dollars.

    cost of work = owner's cost of a chip-hour / rate of the workload

A study names chips (also variants of a description), times the same workloads on each by the operator models, and
says in one sentence what follows and what would change it. Rates are of one busy chip; a server's queue is not in them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tapeout.accelerator import Accelerator, MissingFigure
from tapeout.chip.description import Chip, GiB, Hbm
from tapeout.chip.reference import inference
from tapeout.figures import Estimate, Provenance, given, number
from tapeout.models import step as steps
from tapeout.models.questions import own_parameters
from tapeout.models.tables import ModelError, table
from tapeout.models.timers import Timer
from tapeout.silicon.naming import accelerator
from tapeout.silicon.ownership import Site, at_price, ownership
from tapeout.silicon.technology import Technology

BAGS = 65536
DECODE = "decode of llama-3.1-8b, tokens"
PREFILL = "prefill of llama-3.1-8b, tokens"
LOOKUPS = "embedding bags of 20 rows of 128"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A workload on a chip. `usd` is the cost of a million units; `times` the units a dollar over the reference's. All
    None where the chip cannot do it or a figure is missing, which `why` then says."""

    chip: str
    workload: str
    rate: Estimate | None = None
    usd: Estimate | None = None
    times: Estimate | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """`changes` are the sentences on what would turn the verdict."""

    name: str
    question: str
    verdict: str
    reference: str
    rows: tuple[Row, ...]
    changes: tuple[str, ...]

    def of(self, chip: str, workload: str) -> Row:
        return next(row for row in self.rows if (row.chip, row.workload) == (chip, workload))


def study(name: str, technology: Technology, site: Site | None = None) -> Study:
    """The study of that name. Raises ModelError for a name that is none."""
    if name not in STUDIES:
        raise ModelError(f"unknown study {name!r}; known: {', '.join(STUDIES)}")
    return STUDIES[name](technology, site or Site())


def _step(batch: int, context: int, *, is_prefill: bool = False) -> steps.Step:
    model = steps.model_called("llama-3.1-8b")
    return steps.Step(model=model, batch=batch, context=context, is_prefill=is_prefill)


def _workloads(batch: int) -> dict[str, steps.Step | None]:
    """Decode at 4,096 tokens of context, prefill of as many, and bags (no step of a model)."""
    return {DECODE: _step(batch, 4096), PREFILL: _step(1, 4096, is_prefill=True), LOOKUPS: None}


def _rate(chip: Accelerator, asked: steps.Step | None) -> Estimate:
    """Units a second. Raises ModelError that says what is missing, or that the model does not fit."""
    timer = Timer(chip=chip, own=own_parameters())
    if asked is None:
        seconds = timer.time(table("embedding", "bfloat16", rows=BAGS, columns=128, bag=20)).estimate()
        return (number(BAGS) / seconds).called("rate")
    size = chip.dram.size
    if size is not None and asked.memory_bytes > size.to("B").value:
        raise ModelError(
            f"weights and cache take {asked.memory_bytes / GiB:,.0f} GiB of {size.to('GiB').value:,.0f} GiB"
        )
    found = steps.answer(asked, timer)
    if isinstance(found, ModelError):
        raise found
    seconds = given(
        f"step on {chip.name}",
        found.seconds,
        "s",
        Provenance.named(found.provenance),
        "operator models",
        low=found.low,
        high=found.high,
    )
    return (number(asked.tokens) / seconds).called("rate")


def _hourly(chip: Accelerator, site: Site, technology: Technology) -> Estimate:
    """Owner's cost of an hour; where no price is known, what a hyperscaler's cost is said to be."""
    try:
        return ownership(chip, site, technology).per_hour
    except MissingFigure:
        if chip.hyperscaler_cost is None:
            raise
        return chip.hyperscaler_cost


def _rows(
    chips: Sequence[Accelerator], reference: str, batch: int, site: Site, technology: Technology
) -> tuple[Row, ...]:
    found: list[Row] = []
    for workload, asked in _workloads(batch).items():
        costs: dict[str, tuple[Estimate, Estimate]] = {}
        reasons: dict[str, str] = {}
        for chip in chips:
            try:
                rate = _rate(chip, asked)
                usd = (_hourly(chip, site, technology) / rate).to("USD") * 1e6
            except (ModelError, MissingFigure) as missing:
                reasons[chip.name] = str(missing)
            else:
                costs[chip.name] = rate, usd
        for chip in chips:
            if chip.name in reasons:
                found.append(Row(chip=chip.name, workload=workload, why=reasons[chip.name]))
                continue
            rate, usd = costs[chip.name]
            times = (costs[reference][1] / usd).called("times the reference") if reference in costs else None
            found.append(Row(chip=chip.name, workload=workload, rate=rate, usd=usd, times=times))
    return tuple(found)


def _best(rows: Sequence[Row], workload: str) -> Row | None:
    known = [row for row in rows if row.workload == workload and row.usd is not None]
    return min(known, key=lambda row: row.usd.value if row.usd else 0.0, default=None)


def with_memory(chip: Chip, name: str, kind: str, packages: int, gib_each: int, gb_per_s_each: float) -> Chip:
    """The chip with other memory: so many packages, each with a capacity and a rate."""
    memory = Hbm(
        kind=kind,
        stack_count=packages,
        size_bytes=packages * gib_each * GiB,
        bandwidth_bytes_per_s=int(packages * gb_per_s_each * 1e9),
        channel_count=packages * 2,
    )
    return dataclasses.replace(chip, name=name, hbm=memory)


def drop_hbm(technology: Technology, site: Site) -> Study:
    """Cheaper memory on the inference chip."""
    gddr = with_memory(inference, "inference-GDDR6", "GDDR6", 12, 2, 64)
    lpddr = with_memory(inference, "inference-LPDDR5", "LPDDR5", 16, 8, 64)
    chips = [accelerator(each, technology) for each in (inference, gddr, lpddr)]
    rows = _rows(chips, "inference", 8, site, technology)
    own = next(row for row in rows if row.chip == "inference" and row.workload == DECODE)
    rival = min(
        (row for row in rows if row.workload == DECODE and row.chip != "inference" and row.usd is not None),
        key=lambda row: row.usd.value if row.usd else 0.0,
    )
    assert own.usd is not None and rival.usd is not None and rival.times is not None

    def dearer(factor: float) -> float:
        """Cost of a token with HBM at so many times its price, over the rival's."""
        price = technology["dram_price.HBM3e"]
        scaled = technology.replacing({"dram_price.HBM3e": price * factor})
        costs = _hourly(accelerator(inference, scaled), site, scaled)
        assert own.rate is not None and rival.usd is not None
        return (costs / own.rate).to("USD").value * 1e6 - rival.usd.value

    keep = own.usd.value <= rival.usd.value
    turning = _crossing(dearer, 1, 100) if keep else None
    if turning:
        level = f"HBM would have to cost {turning:.1f} times its price before they draw level."
    elif keep:
        level = "At no price of HBM up to a hundred times today's do they draw level."
    else:
        level = "The cheaper memory is ahead at today's price of HBM."
    verdict = (
        f"{'Keep' if keep else 'Drop'} HBM: a token of decode costs {rival.usd.value / own.usd.value:.2f} times as "
        f"much with {rival.chip.removeprefix('inference-')}, the best of the cheaper memories."
    )
    changes = (
        level,
        "Fewer bytes a token (larger batches, quantised weights, recommenders that fit) favour cheaper memory.",
    )
    return Study(
        name="drop-hbm",
        question="Should the inference chip drop HBM for cheaper memory?",
        verdict=verdict,
        reference="inference",
        rows=rows,
        changes=changes,
    )


def four_times(technology: Technology, site: Site) -> Study:
    """Achieved rates a dollar against an H100, where `tapeout cost --study` counts peak ones."""
    names = ("inference", "H100", "H20", "B200-SXM")
    chips = [accelerator(name, technology) for name in names]
    reference = chips[1].name
    rows = _rows(chips, reference, 32, site, technology)
    ours = [row for row in rows if row.chip == "inference" and row.times is not None]
    parts = [f"{row.times.value:.2g} times in {row.workload}" for row in ours if row.times]
    holds = bool(ours) and all(row.times is not None and row.times.value >= 4 for row in ours)
    newest = next((row for row in rows if row.chip == chips[3].name and row.workload == DECODE and row.times), None)
    changes = ["Peak rates and the export thresholds: `tapeout cost inference --study`."]
    if newest and newest.times:
        changes.append(f"A B200 gives {newest.times.value:.2g} times an H100's tokens a dollar: it is the one to beat.")
    return Study(
        name="four-times",
        question="Is `inference` four times an H100 at equal cost, by the rates that workloads reach?",
        verdict=f"It {'is' if holds else 'is not'}: a dollar gives {', '.join(parts)}.",
        reference=reference,
        rows=rows,
        changes=tuple(changes),
    )


def h20(technology: Technology, site: Site) -> Study:
    """The chip one may buy against the one that would be built."""
    chips = [accelerator(name, technology) for name in ("H20", "inference", "H100", "L20")]
    mine, ours = chips[0], chips[1]
    rows = _rows(chips, mine.name, 32, site, technology)
    own = next(row for row in rows if row.chip == mine.name and row.workload == DECODE)
    rival = next(row for row in rows if row.chip == ours.name and row.workload == DECODE)
    if own.rate is None or own.usd is None or rival.usd is None:
        raise ModelError(f"the study needs decode of both chips: {own.why or rival.why}")
    rate, level = own.rate, rival.usd.value

    def above(price: float) -> float:
        return (_hourly(at_price(mine, price), site, technology) / rate).to("USD").value * 1e6 - level

    price = _crossing(above, 0, 200_000)
    ratio = own.usd.value / rival.usd.value
    return Study(
        name="h20",
        question="Buy H20, or build `inference` for decode?",
        verdict=f"A token of decode on an H20 costs {ratio:.2f} times one on `inference`, at today's price.",
        reference=mine.name,
        rows=rows,
        changes=(
            f"At {price:,.0f} USD an H20 they draw level."
            if price
            else "At no price between 0 and 200,000 USD of an H20 do they draw level.",
            "Prefill weighs the other way where prompts are long: see its rows.",
            "Supply: `tapeout cost H20 --chips N --delivered-per-quarter M`. Export status decides before any price.",
        ),
    )


def gaming_card(technology: Technology, site: Site) -> Study:
    """A gaming card in place of a data-centre inference card."""
    chips = [accelerator(name, technology) for name in ("RTX-4090", "inference", "L20", "L40S")]
    reference = chips[0].name
    rows = _rows(chips, reference, 8, site, technology)
    best = _best(rows, DECODE)
    assert best is not None and best.usd is not None
    return Study(
        name="4090-or-inference-card",
        question="Serve an 8B model on gaming cards, or on inference cards?",
        verdict=f"The cheapest token of decode at a batch of 8 comes from {best.chip}: "
        f"{best.usd.value:.3g} USD a million.",
        reference=reference,
        rows=rows,
        changes=(
            "24 GiB hold weights and cache of 8 sequences of 4,096 tokens and little more: a larger model or batch "
            "needs several cards without fast links.",
            "Makers of gaming cards forbid data centres in their driver's licence; no price counts that.",
        ),
    )


STUDIES: Mapping[str, Callable[[Technology, Site], Study]] = {
    "drop-hbm": drop_hbm,
    "four-times": four_times,
    "h20": h20,
    "4090-or-inference-card": gaming_card,
}


def _crossing(difference: Callable[[float], float], low: float, high: float) -> float | None:
    """Where the difference changes its sign between the two, to a part in ten thousand, or None."""
    at_low = difference(low)
    if at_low * difference(high) > 0:
        return None
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        if at_low * difference(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
