"""`tapeout serve-sim`: a trace served on kinds of chips, in virtual time, and the highest rate each sustains.

The scheduler is vLLM's; the times of its steps come from the operator models. Not timed: the host's work between steps
(unless it is given), the network, tokenizing, and the reading of a cache by a prompt's later pieces beyond what the
operator models hold. So every time is "at least".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tapeout.accelerator import MissingFigure
from tapeout.errors import TapeoutError
from tapeout.models.batch import BatchTimer
from tapeout.models.step import POWER_SHARES, ModelShape, Step
from tapeout.models.tables import ModelError
from tapeout.models.timers import Timer
from tapeout.serving import search
from tapeout.serving.objectives import Figures, Objective, figures_of
from tapeout.serving.traces import Trace, at_rate, rate_of
from tapeout.serving.virtual_time import PICOSECONDS, Engine, Served, serve
from tapeout.silicon import technology
from tapeout.silicon.ownership import Site, cost_of_work, ownership

MEMORY_SHARE = 0.92
"""Of a chip's memory, what vLLM takes for weights, activations and cache by default (gpu_memory_utilization)."""
UNTIMED = (
    "the host's work between steps, network and tokenizing",
    "kernels of sampling beyond one pass over the logits",
)


class ServingError(TapeoutError, ValueError):
    """A server that cannot be: the model does not fit, or a request does not."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What is served and how. `host_us`: what every step costs the host, beyond what it hides."""

    model: ModelShape
    tp: int = 1
    ep: int = 1
    weight_dtype: str = "bfloat16"
    cache_dtype: str = "bfloat16"
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    block_tokens: int = 16
    host_us: float = 0.0

    @property
    def chip_count(self) -> int:
        return self.tp * self.ep

    def step(self, batch: int = 1, context: int = 1) -> Step:
        return Step(
            model=self.model,
            batch=batch,
            context=context,
            tp=self.tp,
            ep=self.ep,
            weight_dtype=self.weight_dtype,
            cache_dtype=self.cache_dtype,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One kind of chip. Dollars and joules are for a million output tokens, None where price or power is not known;
    joules are of busy time alone. `best` is None if no objective was given."""

    timer: Timer
    server: Server
    served: Served
    figures: Mapping[str, Figures | None]
    objective: Objective | None
    share_held: float | None
    best: search.HighestRate | None
    at_best: "Served | None"
    cache_tokens: int
    joules: float | None
    dollars: float | None
    dollars_at_best: float | None
    provenance: str
    notes: tuple[str, ...] = ()
    untimed: Sequence[str] = field(default=UNTIMED)

    @property
    def goodput_per_s(self) -> float | None:
        """Requests that hold the objective, a second."""
        return None if self.share_held is None else self.share_held * len(self.served.requests) / self.served.span_s

    @property
    def tokens_per_s_per_chip(self) -> float:
        return self.served.output_tokens / self.served.span_s / self.server.chip_count

    @property
    def tokens_per_s_per_user(self) -> float | None:
        """1 / mean TPOT."""
        tpot = self.figures["tpot"]
        return 1 / tpot.mean_s if tpot is not None and tpot.mean_s else None


EngineMaker = Callable[[Server, int, int], Engine]
"""From a server, its blocks of cache and its longest sequence."""


def answer(
    trace: Trace,
    server: Server,
    timer: Timer,
    make_engine: EngineMaker,
    *,
    objective: Objective | None = None,
    share: float = 0.99,
) -> Answer | TapeoutError:
    """A trace on one kind of chip, or why it cannot be told. With an objective, also the highest rate at which at
    least this share of the requests holds it."""
    try:
        return _answer(trace, server, timer, make_engine, objective, share)
    except (ServingError, ModelError, MissingFigure) as error:
        return error


def _answer(
    trace: Trace, server: Server, timer: Timer, make_engine: EngineMaker, objective: Objective | None, share: float
) -> Answer:
    longest = max(each.prompt_tokens + each.output_tokens for each in trace)
    blocks = cache_blocks(server, timer, longest)
    batches = BatchTimer(
        timer=timer,
        model=server.model,
        tp=server.tp,
        ep=server.ep,
        weight_dtype=server.weight_dtype,
        cache_dtype=server.cache_dtype,
        largest_tokens=server.max_batched_tokens,
        largest_context=longest,
    )

    def at(requests: Trace) -> Served:
        engine = make_engine(server, blocks, longest)
        return serve(requests, engine, batches.time, host_ps=round(server.host_us * PICOSECONDS / 1e6))

    served = at(trace)
    best = at_best = None
    if objective is not None and len(trace) > 1:
        limits = objective
        best = search.highest_rate(
            lambda rate: limits.share_held(at(at_rate(trace, rate)).requests) >= share, _start(trace)
        )
        at_best = at(at_rate(trace, best.rate_per_s)) if best.rate_per_s else None
    notes = dict(batches.notes)
    joules = dollars = dollars_at_best = None
    if timer.chip.tdp is not None:
        drawn = sum(POWER_SHARES.get(bound, 0.35) * ps for bound, ps in served.busy_ps.items()) / PICOSECONDS
        joules = timer.chip.tdp.to("W").value * drawn * server.chip_count / served.output_tokens * 1e6
    try:
        costs = ownership(timer.chip, Site(), technology.load())
    except ValueError as missing:
        notes[f"No cost: {missing}."] = None
    else:

        def priced(what: Served) -> float:
            per_s = what.output_tokens / what.span_s / server.chip_count
            return cost_of_work(costs, per_s, "token").value

        dollars = priced(served)
        dollars_at_best = priced(at_best) if at_best is not None else None
    return Answer(
        timer=timer,
        server=server,
        served=served,
        figures=figures_of(served.requests),
        objective=objective,
        share_held=objective.share_held(served.requests) if objective is not None else None,
        best=best,
        at_best=at_best,
        cache_tokens=blocks * server.block_tokens,
        joules=joules,
        dollars=dollars,
        dollars_at_best=dollars_at_best,
        provenance=batches.provenance,
        notes=tuple(notes),
    )


def _start(trace: Trace) -> float:
    rate = rate_of(trace)
    return rate if 0 < rate < float("inf") else 1.0


def cache_blocks(server: Server, timer: Timer, longest: int) -> int:
    """Blocks of cache beside weights and activations. Raises ServingError if not even the longest request fits."""
    memory = timer.chip.require("memory_gb").to("B").value * MEMORY_SHARE
    step = server.step()
    free = memory - step.weight_bytes - activation_bytes(server)
    blocks = int(free // (step.cache_bytes_per_token * server.block_tokens))
    needed = -(-longest // server.block_tokens) + 1
    if blocks < needed:
        count = server.chip_count
        raise ServingError(
            f"{server.model.name} in {server.weight_dtype} does not fit {count} {timer.chip.name}: weights take "
            f"{step.weight_bytes / 2**30:,.1f} GiB of a chip's {memory / 2**30:,.1f} GiB for them, and the longest "
            f"request {needed * server.block_tokens * step.cache_bytes_per_token / 2**30:,.2f} GiB of cache; use more "
            "chips with --tp, or a smaller element type with --dtype"
        )
    return blocks


def activation_bytes(server: Server) -> float:
    """What one layer of the largest batch holds at once, and the logits of all its sequences in 32 bits. A count, not
    vLLM's measurement of it."""
    model = server.model
    width = 4 * model.hidden + 3 * (model.intermediate + 2 * model.heads * model.head_size) / server.tp
    return 2 * server.max_batched_tokens * width + 4 * server.max_sequences * model.vocabulary
