"""Instances that may carry a workload: on which kind, on how many cards, how much each carries within its bounds.

Takes a fleet, gives every `Column` and, for what has none, why. The assignment chooses how many of each.

Serving. An instance with b sequences in flight decodes one token of each in d(b) and reads a prompt in p; prompts go
first. At a rate r it is busy r·p of the time with prompts, so tokens follow each other in d(b) / (1 - r·p), and for
answers of n tokens r·n times that are in flight: r = b / (n·d(b) + b·p). A first token waits for prompts before it
(`queues.wait_s`), for the running step d(b), and for its own prompt p.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from tapeout.fleet import queues, ranking
from tapeout.fleet.description import Fleet, FleetError, Kind, Place, Rank, Serve, Train, Workload
from tapeout.fleet.step_times import Rows, rows_of
from tapeout.models.questions import own_parameters
from tapeout.models.step import ModelShape, Step, model_called
from tapeout.models.step import operations as step_operations
from tapeout.models.tables import ModelError
from tapeout.models.timers import Timer
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator
from tapeout.silicon.ownership import Site, ownership

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXTS = (1, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
"""Contexts at which decode steps are timed; between them the time goes with the context, as attention does."""
PROMPTS = tuple(sorted({size for power in range(4, 20) for size in (2**power, 3 * 2 ** (power - 1))}))
TENSOR_PARALLEL = (1, 2, 4, 8, 16, 32, 64)
MEMORY_SHARE = 0.9
"""Share of a card's memory for weights and cache; the rest is for activations and the runtime. Assumed."""


@dataclass(frozen=True)
class Column:
    """One instance of a workload on one kind. `carries` is in the workload's own unit (requests/s, queries/s; a
    training run is 1). `usd_per_h` and `power_kw` are of all its cards. `within` names each bound with what the
    instance needs of it at that load and its limit."""

    workload: int
    kind: int
    cards: int
    carries: float
    usd_per_h: float
    power_kw: float
    setting: str
    within: tuple[tuple[str, float, float], ...]
    bound: str


@dataclass(frozen=True)
class Card:
    """Cost an hour of one card of a kind, power included, and its draw. `provenance` is the weakest of its figures."""

    timer: Timer
    usd_per_h: float
    power_kw: float
    memory_bytes: float
    provenance: str


@dataclass(eq=False)
class Unfit(Exception):
    """A workload does not go on a kind: `text` ends a sentence about the kind. `remedy` is what would change that, if
    one field of the workload would, and `excess` by how much the bound is missed."""

    text: str
    remedy: str = ""
    excess: float = math.inf


def demand(workload: Workload) -> float:
    """Amount of work to carry, in the workload's unit."""
    if isinstance(workload, Serve):
        return workload.requests_per_s
    return workload.queries_per_s if isinstance(workload, Rank) else 1.0


def cards_of(fleet: Fleet) -> list[Card]:
    """A card of each kind. Raises FleetError for a chip nobody knows or a figure that the file must give."""
    figures, own = technology.load(), own_parameters()
    found = []
    for kind in fleet.kinds:
        try:
            timer = Timer(chip=accelerator(kind.chip or kind.name, figures), own=own)
        except ValueError as error:
            raise FleetError(f"kinds.{kind.name}: {error}; name a known chip with chip=...") from None
        if timer.chip.dram.size is None:
            raise FleetError(f"kinds.{kind.name}: the memory of {timer.chip.name} is not known, so nothing fits on it")
        memory = MEMORY_SHARE * timer.chip.dram.size.to("B").value
        usd, power, provenance = kind.usd_per_h, kind.power_kw, "defined"
        if usd is None or power is None:
            try:
                costs = ownership(timer.chip, Site(chip_count=max(kind.count, 1)), figures)
            except ValueError as error:
                raise FleetError(f"kinds.{kind.name}: {error}, or state usd_per_h and power_kw") from None
            parts = [part.to("USD/h").value for part in costs.per_hour.parts if part.name != "power"]
            usd = math.fsum(parts) if usd is None else usd
            power = costs.all_in.to("kW").value if power is None else power
            provenance = str(costs.per_hour.provenance)
        tariff = fleet.site_of(kind).usd_per_kwh
        found.append(Card(timer, usd + power * tariff, power, memory, provenance))
    return found


def columns(fleet: Fleet, cards: Sequence[Card]) -> tuple[list[Column], list[dict[str, Unfit]]]:
    """Every column, and for each workload why kinds have none, by the kind's name."""
    found: list[Column] = []
    reasons: list[dict[str, Unfit]] = []
    asked = _Asked()
    for number, workload in enumerate(fleet.workloads):
        why: dict[str, Unfit] = {}
        for place, (kind, card) in enumerate(zip(fleet.kinds, cards, strict=True)):
            refusal = fleet.allows(workload, kind)
            if refusal:
                why[kind.name] = Unfit(refusal)
                continue
            try:
                if isinstance(workload, Serve):
                    made = _serving(fleet, workload, place, card, asked)
                elif isinstance(workload, Rank):
                    made = [_ranking(workload, card, asked)]
                else:
                    assert isinstance(workload, Train)
                    made = [_training(workload, kind, card)]
            except Unfit as unfit:
                why[kind.name] = unfit
                continue
            except ModelError as error:
                if "unknown" in str(error):
                    raise FleetError(f"workloads.{workload.name}: {error}") from None
                why[kind.name] = Unfit(f"has no answer ({error})")
                continue
            found += [_placed(each, number, place, card) for each in made]
        reasons.append(why)
    return found, reasons


def _placed(column: Column, workload: int, kind: int, card: Card) -> Column:
    return replace(
        column,
        workload=workload,
        kind=kind,
        usd_per_h=column.cards * card.usd_per_h,
        power_kw=column.cards * card.power_kw,
    )


def _column(cards: int, carries: float, setting: str, within: tuple[tuple[str, float, float], ...]) -> Column:
    bound = max(within, key=lambda each: each[1] / each[2])[0] if within else "load"
    return Column(0, 0, cards, carries, 0.0, 0.0, setting, within, bound)


@dataclass(frozen=True)
class _Curves:
    """Decode seconds by tensor-parallel size, batch and context, and prompt seconds by size and prompt."""

    sizes: tuple[int, ...]
    decode: dict[tuple[int, int], list[float]]
    prefill: dict[int, list[float]]
    contexts: tuple[int, ...]
    prompts: tuple[int, ...]

    def decode_s(self, size: int, batch: int, context: float) -> float:
        return float(np.interp(context, self.contexts, self.decode[size, batch]))

    def prefill_s(self, size: int, tokens: float) -> float:
        return float(np.interp(tokens, self.prompts, self.prefill[size]))


def _curves(fleet: Fleet, workload: Serve, place: int, card: Card, asked: "_Asked") -> _Curves:
    """The curves that all workloads of this model and these types on this kind need."""
    model, kind = model_called(workload.model), fleet.kinds[place]
    alike = [
        each
        for each in fleet.workloads
        if isinstance(each, Serve)
        and (each.model, each.dtype, each.cache_dtype) == (workload.model, workload.dtype, workload.cache_dtype)
    ]
    contexts = _bracketing(CONTEXTS, [_context(each) for each in alike])
    prompts = _bracketing(PROMPTS, [each.input_tokens for each in alike])
    widest = min(kind.cards_per_node, max(kind.count, 1))
    sizes = tuple(size for size in TENSOR_PARALLEL if size <= widest and not model.heads % size)
    times = asked.steps(workload, sizes, contexts, prompts).seconds(card.timer)
    split = len(sizes) * len(BATCHES) * len(contexts)
    decode = times[:split].reshape(len(sizes), len(BATCHES), len(contexts))
    prefill = times[split:].reshape(len(sizes), len(prompts))
    return _Curves(
        sizes,
        {
            (size, batch): decode[row, column].tolist()
            for row, size in enumerate(sizes)
            for column, batch in enumerate(BATCHES)
        },
        {size: prefill[row].tolist() for row, size in enumerate(sizes)},
        contexts,
        prompts,
    )


@dataclass(frozen=True)
class _Asked:
    """Operators that are the same on every kind, kept between kinds, and the curves of each kind."""

    rows: dict[tuple[object, ...], Rows] = field(default_factory=dict)
    curves: dict[tuple[object, ...], "_Curves | Unfit"] = field(default_factory=dict)

    def steps(
        self, workload: Serve, sizes: tuple[int, ...], contexts: tuple[int, ...], prompts: tuple[int, ...]
    ) -> Rows:
        """Decode steps by size, batch and context, then prompts by size and length."""
        key = (workload.model, workload.dtype, workload.cache_dtype, sizes, contexts, prompts)
        if key not in self.rows:

            def step(size: int, batch: int, context: int, is_prefill: bool) -> Step:
                return Step(
                    model=model_called(workload.model),
                    batch=batch,
                    context=context,
                    is_prefill=is_prefill,
                    tp=size,
                    weight_dtype=workload.dtype,
                    cache_dtype=workload.cache_dtype,
                )

            steps = [step(size, batch, context, False) for size, batch, context in product(sizes, BATCHES, contexts)]
            steps += [step(size, 1, prompt, True) for size, prompt in product(sizes, prompts)]
            self.rows[key] = rows_of([tuple(step_operations(each)) for each in steps])
        return self.rows[key]

    def query(self, workload: Rank) -> Rows:
        key = (workload.model, workload.candidates)
        if key not in self.rows:
            shape = ranking.ranking_called(workload.model)
            self.rows[key] = rows_of([tuple(ranking.operations(shape, workload.candidates))])
        return self.rows[key]


def _bracketing(grid: Sequence[int], wanted: Sequence[float]) -> tuple[int, ...]:
    """The points of a grid that enclose every wanted one."""
    kept = set()
    for each in wanted:
        above = next((place for place, point in enumerate(grid) if point >= each), len(grid) - 1)
        kept |= {grid[max(above - 1, 0)], grid[above]}
    return tuple(sorted(kept))


def _context(workload: Serve) -> float:
    """Tokens that the mean decode step of a request finds in its cache."""
    return workload.input_tokens + workload.output_tokens / 2


def _serving(
    fleet: Fleet,
    workload: Serve,
    place: int,
    card: Card,
    asked: _Asked,
) -> list[Column]:
    key = (place, workload.model, workload.dtype, workload.cache_dtype)
    if key not in asked.curves:
        try:
            asked.curves[key] = _curves(fleet, workload, place, card, asked)
        except ModelError as error:
            if "unknown" in str(error):
                raise
            asked.curves[key] = Unfit(f"has no answer ({error})")
    curves = asked.curves[key]
    if isinstance(curves, Unfit):
        raise curves
    if workload.input_tokens + workload.output_tokens > CONTEXTS[-1]:
        raise Unfit(f"answers at most {CONTEXTS[-1]:,} tokens of prompt and answer")
    model = model_called(workload.model)
    found: list[Column] = []
    misses: list[Unfit] = []
    for size in curves.sizes:
        best = _best_load(workload, model, size, card, curves)
        if isinstance(best, Unfit):
            misses.append(best)
        else:
            found.append(best)
    if not found:
        raise min(misses, key=lambda each: each.excess)
    return found


def _best_load(workload: Serve, model: ModelShape, size: int, card: Card, curves: _Curves) -> Column | Unfit:
    """The greatest rate one instance carries within both bounds."""
    tokens, ttft, tpot = workload.output_tokens, workload.ttft_ms / 1e3, workload.tpot_ms / 1e3
    prompt = curves.prefill_s(size, workload.input_tokens)
    best_rate, best_batch, best_decode = 0.0, 0, 0.0
    for batch in BATCHES:
        held = Step(
            model=model,
            batch=batch,
            context=workload.input_tokens + tokens,
            tp=size,
            weight_dtype=workload.dtype,
            cache_dtype=workload.cache_dtype,
        ).memory_bytes
        if held > card.memory_bytes:
            if batch == 1:
                return Unfit(f"does not hold the {held / 2**30:,.0f} GiB that each of {size} cards would need")
            break
        decode = curves.decode_s(size, batch, _context(workload))
        first = prompt + decode
        if batch == 1 and decode >= tpot:
            return _missed(workload, "tpot_ms", "a later token", decode, size)
        if batch == 1 and first >= ttft:
            return _missed(workload, "ttft_ms", "a first token", first, size)
        if decode >= tpot or first >= ttft:
            break
        limit = min(batch / (tokens * decode + batch * prompt), (1 - decode / tpot) / prompt)

        def holds(rate: float, first: float = first) -> bool:
            return queues.wait_s(rate, prompt) + first <= ttft

        rate = queues.greatest(holds, limit)
        if rate > best_rate:
            best_rate, best_batch, best_decode = rate, batch, decode
    first = queues.wait_s(best_rate, prompt) + best_decode + prompt
    later = best_decode / (1 - best_rate * prompt)
    within = (("TTFT", first * 1e3, workload.ttft_ms), ("TPOT", later * 1e3, workload.tpot_ms))
    return _column(size, best_rate, f"TP {size}, batch {best_batch}", within)


def _missed(workload: Workload, field: str, what: str, needs_s: float, size: int) -> Unfit:
    bound_ms = getattr(workload, field)
    needs_ms = needs_s * 1e3
    return Unfit(
        f"needs {needs_ms:.3g} ms for {what} on {size} {'card' if size == 1 else 'cards'} ({field}={bound_ms:g})",
        f"{field}={float(f'{needs_ms * 1.2:.2g}'):g}",
        needs_ms / bound_ms,
    )


def _ranking(workload: Rank, card: Card, asked: _Asked) -> Column:
    shape = ranking.ranking_called(workload.model)
    if shape.memory_bytes > card.memory_bytes:
        raise Unfit(f"does not hold the {shape.memory_bytes / 2**30:,.0f} GiB of {shape.name}'s tables")
    service = float(asked.query(workload).seconds(card.timer)[0])
    bound = workload.p99_ms / 1e3
    rate = queues.greatest(lambda rate: queues.wait_s(rate, service) + service <= bound, 0.98 / service)
    if rate <= 0:
        raise _missed(workload, "p99_ms", "a query", service, 1)
    reached = (queues.wait_s(rate, service) + service) * 1e3
    return _column(1, rate, f"{service * 1e6:,.0f} µs a query", (("p99", reached, workload.p99_ms),))


def _training(workload: Train, kind: Kind, card: Card) -> Column:
    """Cards, in whole nodes, that end the run in time: 6 operations a parameter in use and token."""
    chip, model = card.timer.chip, model_called(workload.model)
    peak = chip.peak.get("bfloat16")
    if peak is None:
        raise Unfit(f"has no published bfloat16 peak, which training on {chip.name} needs")
    flop = 6 * active_parameters(model) * workload.tokens
    per_card = flop / (peak.to("op/s").value * workload.flop_share * workload.deadline_days * 86400)
    cards = max(math.ceil(per_card / kind.cards_per_node), 1) * kind.cards_per_node
    if 18 * model.parameter_count > cards * card.memory_bytes:  # weights, gradients, master copy and two moments
        cards = math.ceil(18 * model.parameter_count / card.memory_bytes / kind.cards_per_node) * kind.cards_per_node
    if cards > kind.count:
        late = per_card * workload.deadline_days / max(kind.count // kind.cards_per_node * kind.cards_per_node, 1)
        raise Unfit(
            f"has {kind.count:,} of the {cards:,} cards that end in {workload.deadline_days:g} days",
            f"deadline_days={math.ceil(late)}",
            cards / max(kind.count, 1),
        )
    days = workload.deadline_days * per_card / cards
    setting = f"{days:.3g} days at {workload.flop_share:.0%} of peak"
    return _column(cards, 1.0, setting, (("deadline", days, workload.deadline_days),))


def active_parameters(model: ModelShape) -> float:
    """Parameters that one token uses."""
    if not model.experts:
        return model.parameter_count
    return replace(model, experts=model.experts_per_token + model.shared_experts).parameter_count


def limits(fleet: Fleet) -> list[tuple[str, float]]:
    """Limits that the columns share: cards of each kind, then the power of each site that limits it."""
    return [(kind.name, float(kind.count)) for kind in fleet.kinds] + [
        (site.name, site.power_kw) for site in _limited(fleet) if site.power_kw is not None
    ]


def uses(fleet: Fleet, column: Column) -> dict[int, float]:
    """Use of each limit by one instance, by its place in `limits`."""
    taken = {column.kind: float(column.cards)}
    for number, site in enumerate(_limited(fleet)):
        if fleet.kinds[column.kind].site == site.name:
            taken[len(fleet.kinds) + number] = column.power_kw
    return taken


def _limited(fleet: Fleet) -> list[Place]:
    return [site for site in fleet.sites if site.power_kw is not None]
