"""The search: draw chips for the fit, have Optuna propose candidates, check the best and a sample by the simulator.

Everything is kept in a folder as it is found: Optuna's journal, the simulator's times, the chips. A search that was
killed goes on from there; the same space, workloads and seed are needed.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapeout.accelerator import Accelerator
from tapeout.chip import Chip
from tapeout.chip.changing import value_of
from tapeout.chip.writing import commented_toml
from tapeout.errors import ChipError, InternalError, TapeoutError
from tapeout.exploration.judging import Figures, Fit, Judge, any_value, fit, silicon_figures, violated, workload_seconds
from tapeout.exploration.simulation import Row, Simulator, rows_of
from tapeout.exploration.space import Space, SpaceError
from tapeout.exploration.workloads import Workload
from tapeout.silicon import technology
from tapeout.silicon.described import of_chip
from tapeout.silicon.technology import Technology

DRAWN_FOR_NOTHING = 1500
"""Candidates drawn without one that holds every clause, before the space counts as empty."""
POPULATION = 40
JOURNAL, MARK = "search.journal", "exploration.json"

Chosen = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""Told of what is done: a word, how much, of how much."""


@dataclass(frozen=True)
class Candidate:
    """A chip that was judged. `simulated`: its seconds by workload from the simulator, if it was asked."""

    number: int
    chosen: Mapping[str, Any]
    figures: Figures
    simulated: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Price:
    """The best of a search without one clause, against the best with all: what the clause costs."""

    clause: str
    figure: str
    with_it: float
    without_it: float
    chosen: Mapping[str, Any]


@dataclass(frozen=True)
class Exploration:
    """`front`: feasible candidates that none betters in everything wanted. `correlation`: Spearman's, of the forms'
    ranking of `checked` candidates, to none of which they were fitted, against the simulator's, by workload and of
    speed. `fit_reference`: the base chip's simulated seconds by workload."""

    space: Space
    workloads: tuple[str, ...]
    judged: int
    feasible: int
    impossible: int
    excluded: Mapping[str, int]
    base: Figures
    fit_reference: Mapping[str, float]
    front: tuple[Candidate, ...]
    cloud: tuple[tuple[float, float, bool], ...]
    fit: Fit
    checked: tuple[Candidate, ...]
    correlation: Mapping[str, float]
    prices: tuple[Price, ...]
    seconds: float
    simulated_chips: int


@dataclass(frozen=True)
class Limits:
    """`candidates` of a round and `budget_s`: whichever ends first. `fitted`: chips simulated for the first fit;
    `checked`: candidates simulated after each round, to which the next round's forms are fitted too."""

    candidates: int = 1000
    budget_s: float = math.inf
    fitted: int = 16
    checked: int = 16
    seed: int = 0
    jobs: int = 1
    rounds: int = 1
    prices: bool = False


def explore(
    space: Space, workloads: Sequence[Workload], folder: Path, limits: Limits, progress: Progress
) -> Exploration:
    """Search the space. Raises SpaceError that names the clause that excludes everything."""
    started = time.monotonic()
    _mark(space, workloads, folder, limits)
    figures = technology.load()
    simulator = Simulator(folder / "simulated", tuple(rows_of(workloads)), limits.jobs)
    simulator.folder.mkdir(exist_ok=True)
    drawn = draw(space, workloads, figures, limits.fitted, limits.seed)
    made, times = _simulated(simulator, space, drawn, progress)
    accelerators = [of_chip(chip, figures) for chip in made]
    reference = {each.name: workload_seconds(each, times[0]) for each in workloads}
    until = started + limits.budget_s
    for number in range(limits.rounds):
        fitted = fit(space, workloads, accelerators[1:], times[1:])
        judge = Judge(space, tuple(workloads), figures, fitted, reference)
        name = "all clauses" if number == 0 else f"all clauses, forms {_digest(space, accelerators)}"
        trials = _search(judge, folder, name, (), limits, until, progress)
        feasible = [each for each in trials.judged if each.figures.is_feasible]
        if not feasible:
            raise SpaceError(_nothing(space, [each.figures.violations for each in trials.judged]))
        front = _front(space, feasible)
        seen = {_place(space, each.design) for each in accelerators if each.design is not None}
        strangers = [each for each in feasible if _place(space, space.chip(each.chosen, "candidate")) not in seen]
        checked, more = _check(simulator, judge, _to_check(strangers, front, limits.checked), progress)
        for each, rows in zip(checked, more, strict=True):
            chip = space.chip(each.chosen, f"candidate-{each.number}")
            if _place(space, chip) not in seen:
                accelerators.append(of_chip(chip, figures))
                times.append(rows)
    prices = _prices(judge, folder, name, limits, until, progress, trials) if limits.prices else ()
    unseen = [each for each in checked if _place(space, space.chip(each.chosen, "candidate")) not in seen]
    known = {each.number: each for each in checked}
    front = [known.get(each.number, each) for each in front]
    _write_chips(space, front, folder)
    names = [each.name for each in workloads]
    return Exploration(
        space=space,
        workloads=tuple(names),
        judged=len(trials.judged),
        feasible=len(feasible),
        impossible=trials.impossible,
        excluded=_excluded(space, trials.judged),
        base=judge.with_seconds(of_chip(space.base, figures), reference),
        fit_reference=reference,
        front=tuple(front),
        cloud=tuple(
            (each.figures.values["usd_per_h"], each.figures.values["speed"], each.figures.is_feasible)
            for each in trials.judged
            if "usd_per_h" in each.figures.values
        ),
        fit=fitted,
        checked=tuple(unseen),
        correlation=_correlation(judge, unseen),
        prices=prices,
        seconds=time.monotonic() - started,
        simulated_chips=len(accelerators),
    )


def _mark(space: Space, workloads: Sequence[Workload], folder: Path, limits: Limits) -> None:
    """Refuse to go on in a folder of another search."""
    asked = repr((space, [(each.name, rows_of([each])) for each in workloads], limits.seed, limits.fitted))
    mark = hashlib.sha256(asked.encode()).hexdigest()
    path = folder / MARK
    if path.exists():
        try:
            before = json.loads(path.read_text("utf-8")).get("asked")
        except (ValueError, AttributeError):
            before = None
        if before != mark:
            raise SpaceError(
                f"{folder} holds another search (space, workloads, --seed or --fit differ); name a new folder"
            )
        return
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps({"schema": "tapeout.exploration/1", "asked": mark}) + "\n", "utf-8")
    whole.replace(path)


def draw(space: Space, workloads: Sequence[Workload], figures: Technology, count: int, seed: int) -> list[Chosen]:
    """Different candidates that hold every clause, drawn evenly over the choices. Raises SpaceError for a space with
    none among many, naming what excludes them."""
    generator = np.random.default_rng(seed)
    found: dict[str, Chosen] = {}
    violations: list[tuple[float, ...]] = []
    impossible = ""
    for _ in range(DRAWN_FOR_NOTHING + 40 * count):
        chosen = {place: choices[generator.integers(len(choices))] for place, choices in space.fields.items()}
        if any_value(chosen) in found:
            continue
        try:
            chip = of_chip(space.chip(chosen, "candidate"), figures)
        except ChipError as error:
            impossible = error.sentence
            continue
        values, missing = silicon_figures(chip, figures)
        missed, _ = violated(space, workloads, chip, values | dict.fromkeys(_NEEDS_SPEED, math.nan))
        violations.append(missed)
        if not missing and all(not each > 0 for each in missed):
            found[any_value(chosen)] = chosen
            if len(found) == min(count, space.size):
                break
        elif len(violations) >= DRAWN_FOR_NOTHING and not found:
            break
    if not violations:
        raise SpaceError(f"no candidate is a chip that can be described: {impossible}")
    if not found:
        raise SpaceError(_nothing(space, violations))
    return list(found.values())


_NEEDS_SPEED = ("speed", "speed_per_usd", "speed_per_w")


def _nothing(space: Space, violations: Sequence[tuple[float, ...]]) -> str:
    """The clause that alone excludes all candidates, else the fewest that do together."""
    missed = np.array(violations) > 0
    clauses = space.clauses
    alone = [clause for clause, column in zip(clauses, missed.T, strict=True) if column.all()]
    count = len(violations)
    if alone:
        nearest = float(np.array(violations)[:, clauses.index(alone[0])].min())
        more = f"; the nearest misses it by {nearest:.0%}" if math.isfinite(nearest) else ""
        return (
            f"nothing is left: {' and '.join(repr(each) for each in alone)} each exclude all {count:,} candidates{more}"
        )
    chosen: list[int] = []
    covered = np.zeros(count, bool)
    while not covered.all():
        best = int(np.argmax((missed & ~covered[:, None]).sum(axis=0)))
        if not (missed[:, best] & ~covered).any():
            raise InternalError("a candidate that holds every clause was taken for one that does not")
        chosen.append(best)
        covered |= missed[:, best]
    together = " and ".join(repr(clauses[each]) for each in chosen)
    return f"nothing is left of {count:,} candidates: {together} exclude each other"


def _simulated(
    simulator: Simulator, space: Space, drawn: Sequence[Chosen], progress: Progress
) -> tuple[list[Chip], list[dict[Row, float]]]:
    """The base and the drawn chips with what the simulator says. A drawn chip that cannot run a shape is left out."""
    chips = [space.base, *(space.chip(chosen, f"drawn-{number}") for number, chosen in enumerate(drawn))]
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        progress("chips simulated for the fit", count, len(chips))

    found = simulator.times(chips, done)
    if isinstance(found[0], str):
        raise SpaceError(f"the base chip {space.base.name} cannot run a workload: {found[0]}")
    kept = [(chip, times) for chip, times in zip(chips, found, strict=True) if not isinstance(times, str)]
    if len(kept) < 4:
        reason = next((times for times in found if isinstance(times, str)), "too few were drawn")
        raise SpaceError(f"only {len(kept) - 1} drawn chips could be simulated: {reason}")
    return [chip for chip, _ in kept], [times for _, times in kept]


@dataclass
class _Trials:
    judged: list[Candidate]
    impossible: int


def _search(
    judge: Judge,
    folder: Path,
    name: str,
    left_out: Sequence[int],
    limits: Limits,
    until: float,
    progress: Progress,
) -> _Trials:
    """One study of the journal, without the clauses `left_out`."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError as error:
        raise TapeoutError(
            f"exploring needs {error.name}; in Tapeout's source folder: pip install --editable '.[explore]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = judge.space
    directions: Any = ["maximize"] * len(space.most) + ["minimize"] * len(space.least)

    def study_at(seed: int) -> Any:
        # A sampler's own random numbers are not in the journal; a search that goes on takes others.
        sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        return optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, directions=directions, load_if_exists=True
        )

    study = study_at(limits.seed)
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    if done:
        study = study_at(limits.seed + len(done))
    count = len(done)
    known: dict[str, Figures] = {}
    while count < limits.candidates and time.monotonic() < until:
        trial = study.ask()
        chosen = {
            place: choices[trial.suggest_int(place, 0, len(choices) - 1)] for place, choices in space.fields.items()
        }
        key = any_value(chosen)
        try:
            if key not in known:
                known[key] = judge.figures(space.chip(chosen, "candidate"))
        except ChipError:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            figures = known[key]
            trial.set_user_attr("figures", asdict(figures))
            for place, clause in enumerate(space.clauses):
                if place not in left_out:
                    trial.set_constraint(clause, 1.0 if figures.missing else figures.violations[place])
            wanted = [figures.values.get(each) for each in (*space.most, *space.least)]
            if None in wanted:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, wanted)
        count += 1
        progress(f"candidates, {name}", count, limits.candidates)
    judged: dict[str, Candidate] = {}
    impossible = 0
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        told = trial.user_attrs.get("figures")
        if told is None:
            impossible += 1
            continue
        chosen = {place: choices[trial.params[place]] for place, choices in space.fields.items()}
        figures = Figures(**{**told, "violations": tuple(told["violations"])})
        judged.setdefault(any_value(chosen), Candidate(trial.number, chosen, figures))
    return _Trials(list(judged.values()), impossible)


def _best(space: Space, trials: Sequence[Candidate], left_out: Sequence[int]) -> Candidate | None:
    """The best by the first figure wanted, of those that hold all other clauses."""
    figure, sign = _first(space)
    able = [
        each
        for each in trials
        if not each.figures.missing
        and all(value <= 0 for place, value in enumerate(each.figures.violations) if place not in left_out)
    ]
    return max(able, key=lambda each: sign * each.figures.values[figure], default=None)


def _first(space: Space) -> tuple[str, float]:
    return (space.most[0], 1.0) if space.most else (space.least[0], -1.0)


def _prices(
    judge: Judge, folder: Path, name: str, limits: Limits, until: float, progress: Progress, trials: _Trials
) -> tuple[Price, ...]:
    """Each clause's price: the same search without it."""
    space = judge.space
    figure, _ = _first(space)
    best = _best(space, trials.judged, ())
    if best is None:
        return ()
    prices = []
    for place, clause in enumerate(space.clauses[:-1]):
        other = _search(judge, folder, f"without {clause}: {name}", (place,), limits, until, progress)
        free = _best(space, [*other.judged, *trials.judged], (place,))
        assert free is not None
        with_it, without_it = best.figures.values[figure], free.figures.values[figure]
        prices.append(Price(clause, figure, with_it, without_it, free.chosen))
    return tuple(prices)


def _front(space: Space, feasible: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other betters in everything wanted, the best by the first figure first."""
    names = [(name, -1.0) for name in space.most] + [(name, 1.0) for name in space.least]
    costs = np.array([[sign * each.figures.values[name] for name, sign in names] for each in feasible])
    kept = []
    for place, cost in enumerate(costs):
        better = (costs <= cost).all(axis=1) & (costs < cost).any(axis=1)
        if not better.any():
            kept.append(feasible[place])
    figure, sign = _first(space)
    return sorted(kept, key=lambda each: -sign * each.figures.values[figure])


def _to_check(strangers: Sequence[Candidate], front: Sequence[Candidate], count: int) -> list[Candidate]:
    """The best of the front, and candidates the forms were not fitted to, evenly over the ranking by speed; fewer where
    both are the same."""
    ranked = sorted(strangers, key=lambda each: each.figures.values["speed"])
    wanted = max(count - min(len(front), count // 2), 0) if ranked else 0
    places = np.linspace(0, len(ranked) - 1, wanted).round().astype(int)
    spread = {each.number: each for each in front[: count // 2]}
    for place in places:
        spread.setdefault(ranked[place].number, ranked[place])
    return list(spread.values())


def _digest(space: Space, chips: Sequence[Accelerator]) -> str:
    """A word for the chips that forms were fitted to: candidates that other forms judged are not taken over."""
    places = sorted(repr(_place(space, chip.design)) for chip in chips if chip.design is not None)
    return hashlib.sha256("\n".join(places).encode()).hexdigest()[:8]


def _place(space: Space, chip: Chip) -> tuple[Any, ...]:
    """Coordinates of a chip in the space."""
    return tuple(value_of(chip, place) for place in space.fields)


def _check(
    simulator: Simulator, judge: Judge, asked: Sequence[Candidate], progress: Progress
) -> tuple[list[Candidate], list[dict[Row, float]]]:
    """The candidates with what the simulator says of them, and its times of each shape."""
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        progress("candidates simulated", count, len(asked))

    chips = [judge.space.chip(each.chosen, f"candidate-{each.number}") for each in asked]
    found = simulator.times(chips, done)
    checked, rows = [], []
    for each, times in zip(asked, found, strict=True):
        if not isinstance(times, str):
            seconds = {work.name: workload_seconds(work, times) for work in judge.workloads}
            checked.append(Candidate(each.number, each.chosen, each.figures, seconds))
            rows.append(times)
    return checked, rows


def _correlation(judge: Judge, checked: Sequence[Candidate]) -> dict[str, float]:
    if len(checked) < 3:
        return {}
    found = {}
    for work in judge.workloads:
        told = [each.figures.seconds[work.name] for each in checked]
        true = [each.simulated[work.name] for each in checked if each.simulated]
        found[work.name] = spearman(told, true)
    told = [each.figures.values["speed"] for each in checked]
    true = [speed_of(judge.reference, each.simulated) for each in checked if each.simulated]
    return {**found, "speed": spearman(told, true)}


def speed_of(reference: Mapping[str, float], seconds: Mapping[str, float]) -> float:
    """Geometric mean of the speeds over the reference's."""
    return math.exp(sum(math.log(reference[name] / taken) for name, taken in seconds.items()) / len(seconds))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share their mean rank."""
    ranks = [_ranks(np.array(values)) for values in (first, second)]
    centred = [each - each.mean() for each in ranks]
    below = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / below if below else math.nan


def _ranks(values: Any) -> Any:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _excluded(space: Space, judged: Sequence[Candidate]) -> dict[str, int]:
    """How many candidates each clause excludes."""
    return {
        clause: sum(each.figures.violations[place] > 0 for each in judged) for place, clause in enumerate(space.clauses)
    }


def _write_chips(space: Space, front: Sequence[Candidate], folder: Path) -> None:
    (folder / "chips").mkdir(exist_ok=True)
    for each in front:
        name = f"{space.base.name}-{each.number}"
        (folder / "chips" / f"{name}.toml").write_text(commented_toml(space.chip(each.chosen, name)), "utf-8")
