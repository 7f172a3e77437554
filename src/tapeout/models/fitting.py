"""Fitting: a form's parameters to measured rows, a residual to what is left over, quantiles to what that leaves.

    time = form x exp(residual)

The residual is boosted trees where there are many rows, interpolation between neighbours where there are few. Below
the sizes that were fitted it stands still; above them trees do so by themselves and neighbours fade. Least squares of
clipped logarithms; deterministic: same rows, same parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapeout.models import neighbours, trees
from tapeout.models.forms import Form, Parts, form_of
from tapeout.models.machine import Machine
from tapeout.models.neighbours import Neighbours
from tapeout.models.tables import Array, Table, numbers_of
from tapeout.models.trees import Trees

FORM_ROWS = 500
LEAST_FOR_TREES = 400
LEAST_FOR_NEIGHBOURS = 20
ROWS_FOR_ONE_FOLD = 2000
"""So many rows that half of them, left out once, say enough about errors."""
LEVEL = 0.8
"""The share of unseen rows that a printed range is meant to hold."""


@dataclass(frozen=True)
class Fitted:
    """Fit of one operator and element type. `spreads`: for each class of size, the ratios to the value that hold LEVEL
    of rows not fitted; `outside` the same for rows beyond the hull. `reach`: for each class of the form's time, the
    least and most that the residual adds to its logarithm. `known`: what the fitted rows have in the form's `novel`
    fields. `lowers`: the law of doubled sizes lowers answers (`law.py`)."""

    parameters: Mapping[str, float]
    residual: Trees | Neighbours | None
    hull: Mapping[str, tuple[float, float]]
    spreads: tuple[tuple[float, float, float], ...]  # seconds from which it counts, low, high
    outside: tuple[float, float]
    error: float  # mean absolute relative error on rows not fitted
    row_count: int
    reach: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),)  # seconds from which it counts, low, high
    known: tuple[tuple[float, ...], ...] = ()
    lowers: bool = False

    def reach_of(self, formed: Array) -> tuple[Array, Array]:
        """The least and most that the residual adds where the form says so many seconds."""
        starts, low, high = np.array(self.reach).T
        which = np.maximum(np.searchsorted(starts, formed, side="right") - 1, 0)
        return low[which], high[which]

    def least_from(self, formed: Array) -> Array:
        """The least that a row can take whose form says so many seconds or more."""
        starts, low, _ = np.array(self.reach).T
        later = np.minimum.accumulate(np.append(starts * np.exp(low), np.inf)[::-1])[::-1]
        which = np.maximum(np.searchsorted(starts, formed, side="right") - 1, 0)
        least: Array = np.minimum(formed * np.exp(low[which]), later[which + 1])
        return least


def least_squares(
    residual: Callable[[Array], Array], start: Array, low: Array, high: Array, *, steps: int = 18, clip: float = 0.25
) -> Array:
    """Levenberg and Marquardt's method with residuals beyond `clip` counted linearly and parameters within bounds."""
    at = np.clip(start, low, high)
    damping = 1e-2

    def weighted(values: Array) -> tuple[Array, float]:
        size = np.abs(values)
        loss = np.where(size <= clip, 0.5 * values**2, clip * (size - 0.5 * clip))
        return np.sqrt(np.where(size <= clip, 1.0, clip / np.maximum(size, 1e-12))), float(loss.sum())

    values = residual(at)
    weights, loss = weighted(values)
    for _ in range(steps):
        slopes = np.empty((len(values), len(at)))
        for number in range(len(at)):
            step = 0.02 if at[number] + 0.02 <= high[number] else -0.02
            moved = at.copy()
            moved[number] += step
            slopes[:, number] = (residual(moved) - values) / step
        scaled = slopes * weights[:, None]
        normal, gradient = scaled.T @ scaled, scaled.T @ (values * weights)
        improved = False
        for _ in range(5):
            lever = damping * (np.diag(normal) + 1e-3 * np.trace(normal) / len(at) + 1e-9)
            move = np.linalg.solve(normal + np.diag(lever), -gradient)
            trial = np.clip(at + np.clip(move, -0.7, 0.7), low, high)
            trial_values = residual(trial)
            trial_weights, trial_loss = weighted(trial_values)
            if trial_loss < loss:
                improved = loss - trial_loss > 1e-4 * loss
                at, values, weights, loss = trial, trial_values, trial_weights, trial_loss
                damping = max(damping / 3, 1e-6)
                break
            damping *= 4
        if not improved:
            break
    return at


def bounds_of(form: Form) -> tuple[Array, Array, Array]:
    start, low, high = (np.log([limits[place] for limits in form.parameters.values()]) for place in range(3))
    return start, low, high


def fit_form(
    form: Form,
    sets: list[tuple[Machine, Table]],
    *,
    start: Mapping[str, float] | None = None,
    spread: float | None = None,
    rows: int = FORM_ROWS,
    steps: int = 12,
) -> dict[str, float]:
    """One set of parameters for all tables, each counting alike. With `start` and `spread`, parameters stay near the
    start unless the rows speak against it: `spread` is how far (as a logarithm) they are expected to lie."""
    names = list(form.parameters)
    first, low, high = bounds_of(form)
    if start is not None:
        first = np.log([start[name] for name in names])
    parts = []
    for machine, table in sets:
        generator = np.random.default_rng(0)
        few = table.take(np.sort(generator.permutation(len(table))[:rows]))
        assert few.seconds is not None
        parts.append((machine, few, np.log(few.seconds), 1 / np.sqrt(len(sets)) if spread is None else 1.0))

    def residual(at: Array) -> Array:
        values = dict(zip(names, np.exp(at), strict=True))
        found = [
            weight * (np.log(form.time(machine, values, table).seconds) - measured)
            for machine, table, measured, weight in parts
        ]
        if spread is not None:
            found.append(0.1 * (at - first) / spread)
        return np.concatenate(found)

    fitted = least_squares(residual, first, low, high, steps=steps // 2, clip=1.0)
    fitted = least_squares(residual, fitted, low, high, steps=steps)
    return {name: float(f"{value:.4g}") for name, value in zip(names, np.exp(fitted), strict=True)}


def features(table: Table, parts: Parts) -> Array:
    """Return what a residual may ask of a row: sizes, words, the form's time and its hints."""
    columns = [np.log2(np.maximum(table[name], 0.25)) for name in table.kind.fields]
    for word in table.kind.words:
        columns.append(numbers_of(table.words[word], lambda each: _RANK.get(each, 2.0)))
    columns += [np.log2(parts.seconds), *parts.hints.values()]
    return np.stack(columns, axis=1)


_RANK = {"balanced": 0.0, "power_law_1.01": 1.01, "power_law_1.2": 1.2, "fp8": 1.0, "float8": 1.0}
"""Words as numbers; cache types of two bytes count 2."""


def _together(columns: Mapping[str, Array], fields: tuple[str, ...]) -> NDArray[np.uint64]:
    """A number for the values of several fields together."""
    mark = np.zeros(len(columns[fields[0]]), np.uint64)
    for name in fields:
        mark = mark * np.uint64(1_000_003) + columns[name].astype(np.uint64)
    return mark


def raised(table: Table, hull: Mapping[str, tuple[float, float]]) -> Table:
    """The rows with every size raised to the least that was fitted."""
    moved = {name: np.maximum(values, hull[name][0]) for name, values in table.columns.items()}
    return Table(table.kind, table.dtype, moved, table.words, table.seconds)


def correction(
    form: Form, machine: Machine, fitted: Fitted, table: Table, parts: Parts
) -> tuple[Array, NDArray[np.bool_]]:
    """The factor the residual puts on the form for each row, and which rows lie outside the hull."""
    outside, below = np.zeros(len(table), bool), np.zeros(len(table), bool)
    if fitted.residual is None:
        return np.ones(len(table)), outside
    for name, values in table.columns.items():
        low, high = fitted.hull[name]
        below |= values < low
        outside |= (values < low) | (values > high)
    if fitted.known:
        known = {
            name: np.array(values) for name, values in zip(form.novel, zip(*fitted.known, strict=True), strict=True)
        }
        outside |= ~np.isin(_together(table.columns, form.novel), _together(known, form.novel))
    asked, formed = features(table, parts), parts.seconds.copy()
    if below.any():
        inner = raised(table.take(below), fitted.hull)
        inner_parts = form.time(machine, fitted.parameters, inner)
        asked[below], formed[below] = features(inner, inner_parts), inner_parts.seconds
    least, most = fitted.reach_of(formed)
    return np.exp(np.clip(fitted.residual.predict(asked), least, most)), outside


def fit(sets: list[tuple[Machine, Table]], *, start: Mapping[str, float] | None = None, folds: int = 2) -> Fitted:
    """Form, residual and ranges of one form on one machine from measured rows. Several tables (the collectives) share
    one fit. With `start` the parameters stay near it."""
    form = form_of(sets[0][1].kind.name, sets[0][0])
    count = sum(len(table) for _, table in sets)
    parameters = fit_form(form, sets, start=start, spread=None if start is None else 0.5)
    made = [(table, form.time(machine, parameters, table)) for machine, table in sets]
    measured = np.concatenate([seconds_of(table) for table, _ in made])
    formed = np.concatenate([parts.seconds for _, parts in made])
    hull = {
        name: (
            float(min(table[name].min() for table, _ in made)),
            float(max(table[name].max() for table, _ in made)),
        )
        for name in sets[0][1].kind.fields
    }
    wanted = np.log(measured / formed)
    asked = np.concatenate([features(table, parts) for table, parts in made])
    residual: Trees | Neighbours | None = None
    beyond = None
    known: tuple[tuple[float, ...], ...] = ()
    if form.novel:
        columns = [np.concatenate([table[name] for table, _ in made]) for name in form.novel]
        known = tuple(tuple(row) for row in np.unique(np.stack(columns, axis=1), axis=0).tolist())
    # The parameters saw these rows: what they leave is less than what others will leave.
    free = min(len(parameters), count / 3)
    optimism = np.sqrt((count + free) / (count - free))
    if count < LEAST_FOR_NEIGHBOURS:
        unseen = wanted * optimism
    elif count < LEAST_FOR_TREES:
        residual, unseen = neighbours.fit(asked, wanted)
        unseen = unseen * optimism
    else:
        size = {"tree_count": 500, "depth": 6} if count > 600 else {"tree_count": 150, "depth": 4}
        if sets[0][0].is_described and count <= 600:  # simulated times repeat exactly: there is no noise to learn
            size = {"tree_count": 400, "depth": 5}
        fold = np.arange(count) * 7919 % folds
        parts, judged = [], []
        for number in range(1 if count > ROWS_FOR_ONE_FOLD else folds):
            inside = fold != number
            partial = trees.fit(asked[inside], wanted[inside], **size)
            parts.append(wanted[~inside] - partial.predict(asked[~inside]))
            judged.append(measured[~inside])
        unseen, measured = np.concatenate(parts), np.concatenate(judged)
        residual = trees.fit(asked, wanted, **size)
        held = _held(form, [table for table, _ in made])
        if held is not None:
            partial = trees.fit(asked[~held], wanted[~held], **size)
            beyond = wanted[held] - partial.predict(asked[held])
    reach = _reach(form, formed, residual.predict(asked)) if residual is not None else ((0.0, 0.0, 0.0),)
    bare = Fitted(parameters, residual, hull, (), (1.0, 1.0), 0.0, count, reach, known)
    return ranged(bare, unseen, measured, beyond=beyond)


def _held(form: Form, tables: list[Table]) -> NDArray[np.bool_] | None:
    """Rows to leave out together, to see how predictions err beyond fitted rows; None where the form names no such."""
    if form.novel:
        marks = np.concatenate([_together(table.columns, form.novel) for table in tables])
        groups = np.unique(marks)
        return np.isin(marks, groups[::3]) if len(groups) > 2 else None
    if not form.far:
        return None
    sizes = np.concatenate([table[form.far] for table in tables])
    held = sizes > np.quantile(sizes, 0.75)
    return held if 20 < held.sum() < len(held) - 100 else None


def _reach(form: Form, formed: Array, added: Array) -> tuple[tuple[float, float, float], ...]:
    """Beyond what all but one in a hundred of the fitted rows of about this time asked for, nothing is added."""
    found = []
    for part in np.array_split(np.argsort(formed, kind="stable"), max(1, min(12, len(formed) // 40))):
        least, most = np.clip(np.quantile(added[part], [0.005, 0.995]), -form.reach, form.reach)
        found.append((_round(formed[part].min()), _round(least), _round(most)))
    return ((0.0, *found[0][1:]), *found[1:])


def seconds_of(table: Table) -> Array:
    assert table.seconds is not None
    return table.seconds


def ranged(fitted: Fitted, errors: Array, seconds: Array, *, classes: int = 4, beyond: Array | None = None) -> Fitted:
    """The same with ranges: quantiles of log(measured / predicted) of rows not fitted, by size of the prediction;
    `beyond`: the same of rows larger than all fitted, or of models of which none was fitted."""
    order = np.argsort(seconds, kind="stable")
    spreads = []
    for part in np.array_split(order, max(1, min(classes, len(order) // 40))):
        low, high = np.quantile(errors[part], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        spreads.append((_round(seconds[part].min()), _round(np.exp(min(low, 0.0))), _round(np.exp(max(high, 0.0)))))
    spreads[0] = (0.0, *spreads[0][1:])
    wide = np.quantile(errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if beyond is not None:
        far = np.quantile(beyond, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        outside = np.exp(min(far[0], wide[0], 0.0)), np.exp(max(far[1], wide[1], 0.0))
    else:
        outside = np.exp(2.0 * min(wide[0], -0.02)), np.exp(2.0 * max(wide[1], 0.02))
    return replace(
        fitted,
        spreads=tuple(spreads),
        outside=(_round(outside[0]), _round(outside[1])),
        error=_round(float(np.mean(np.abs(np.expm1(-errors))))),
    )


def _round(value: float) -> float:
    return float(f"{value:.4g}")
