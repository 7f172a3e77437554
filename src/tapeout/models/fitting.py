"""Fitting: a form's parameters to measured rows, trees to what is left over, quantiles to what the trees leave.

    time = form x exp(trees)

Outside the hull of the fitted rows the trees stand still and the time grows as the form does. Least squares of clipped
logarithms; deterministic: same rows, same parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.models import trees
from tapeout.models.forms import FORMS, Form, Parts
from tapeout.models.machine import Machine
from tapeout.models.tables import Array, Table
from tapeout.models.trees import Trees

FORM_ROWS = 500
LEAST_FOR_TREES = 150
LEVEL = 0.8
"""The share of unseen rows that a printed range is meant to hold."""


@dataclass(frozen=True)
class Fitted:
    """Fit of one operator and element type. `spreads`: for each class of size, the ratios to the value
    that hold LEVEL of rows not fitted; `outside` the same for rows beyond the hull."""

    parameters: Mapping[str, float]
    trees: Trees | None
    hull: Mapping[str, tuple[float, float]]
    spreads: tuple[tuple[float, float, float], ...]  # seconds from which it counts, low, high
    outside: tuple[float, float]
    error: float  # mean absolute relative error on rows not fitted
    row_count: int


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
    """Return what the trees may ask of a row: sizes, words, the form's time and its hints."""
    columns = [np.log2(np.maximum(table[name], 0.25)) for name in table.kind.fields]
    for word in table.kind.words:
        words, places = np.unique(table.words[word], return_inverse=True)
        columns.append(np.array([_RANK.get(str(each), 2.0) for each in words])[places])
    columns += [np.log2(parts.seconds), *parts.hints.values()]
    return np.stack(columns, axis=1)


_RANK = {"balanced": 0.0, "power_law_1.01": 1.01, "power_law_1.2": 1.2, "fp8": 1.0, "float8": 1.0}
"""Words as numbers; cache types of two bytes count 2."""


def clamped(table: Table, hull: Mapping[str, tuple[float, float]]) -> Table:
    """The rows moved to the nearest place within the hull of fitted sizes."""
    moved = {name: np.clip(values, *hull[name]) for name, values in table.columns.items()}
    return Table(table.kind, table.dtype, moved, table.words, table.seconds)


def correction(
    form: Form, machine: Machine, fitted: Fitted, table: Table, parts: Parts
) -> tuple[Array, NDArray[np.bool_]]:
    """The factor the trees put on the form for each row, and which rows lie outside the hull."""
    if fitted.trees is None:
        return np.ones(len(table)), np.zeros(len(table), bool)
    inner = clamped(table, fitted.hull)
    outside = np.zeros(len(table), bool)
    for name, values in table.columns.items():
        outside |= values != inner.columns[name]
    inner_parts = form.time(machine, fitted.parameters, inner) if outside.any() else parts
    moved = fitted.trees.predict(features(inner, inner_parts))
    return np.exp(np.clip(moved, -form.reach, form.reach)), outside


def fit(sets: list[tuple[Machine, Table]], *, start: Mapping[str, float] | None = None, folds: int = 2) -> Fitted:
    """Form, trees and ranges of one form on one machine from measured rows. Several tables (the collectives) share one
    fit. With few rows there are no trees, and with `start` the parameters stay near it."""
    form = FORMS[sets[0][1].kind.name]
    count = sum(len(table) for _, table in sets)
    parameters = fit_form(form, sets, start=start, spread=None if start is None else 0.5)
    made = [(table, form.time(machine, parameters, table)) for machine, table in sets]
    measured = np.concatenate([_seconds(table) for table, _ in made])
    formed = np.concatenate([parts.seconds for _, parts in made])
    hull = {
        name: (
            float(min(table[name].min() for table, _ in made)),
            float(max(table[name].max() for table, _ in made)),
        )
        for name in sets[0][1].kind.fields
    }
    wanted = np.log(measured / formed)
    bare = Fitted(parameters, None, hull, (), (1.0, 1.0), 0.0, count)
    if count < LEAST_FOR_TREES:
        # The parameters saw these rows: what they leave is less than what others will leave.
        crowding = np.sqrt((count + len(parameters)) / max(count - len(parameters), 1))
        return ranged(bare, wanted * crowding, formed)
    asked = np.concatenate([features(table, parts) for table, parts in made])
    size = {"tree_count": 400, "depth": 6} if count > 600 else {"tree_count": 150, "depth": 4}
    unseen = np.empty(count)
    fold = np.arange(count) * 7919 % folds
    for number in range(folds):
        inside = fold != number
        partial = trees.fit(asked[inside], wanted[inside], **size)
        unseen[~inside] = wanted[~inside] - partial.predict(asked[~inside])
    whole = Fitted(parameters, trees.fit(asked, wanted, **size), hull, (), (1.0, 1.0), 0.0, count)
    return ranged(whole, unseen, measured)


def _seconds(table: Table) -> Array:
    assert table.seconds is not None
    return table.seconds


def ranged(fitted: Fitted, errors: Array, seconds: Array, *, classes: int = 4) -> Fitted:
    """The same with ranges: quantiles of log(measured / predicted) of rows not fitted, by size of the prediction."""
    order = np.argsort(seconds, kind="stable")
    spreads = []
    for part in np.array_split(order, max(1, min(classes, len(order) // 40))):
        low, high = np.quantile(errors[part], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        spreads.append((_round(seconds[part].min()), _round(np.exp(min(low, 0.0))), _round(np.exp(max(high, 0.0)))))
    spreads[0] = (0.0, *spreads[0][1:])
    wide = np.quantile(errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Fitted(
        fitted.parameters,
        fitted.trees,
        fitted.hull,
        tuple(spreads),
        (_round(np.exp(2.0 * min(wide[0], -0.02))), _round(np.exp(2.0 * max(wide[1], 0.02)))),
        _round(float(np.mean(np.abs(np.expm1(-errors))))),
        fitted.row_count,
    )


def _round(value: float) -> float:
    return float(f"{value:.4g}")
