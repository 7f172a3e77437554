"""The law that a doubled size never takes less time, put on answers whose residual may break it.

An answer is at least the answer for each size halved, as often as it divides by two (`never_less`), or at most the
answer for each size doubled, however often (`never_more`). Either obeys; forms obey by construction, so they say which
rows cannot matter. Raising costs less time. Lowering is nearer to measured rows where some shapes are far too slow:
they do not raise all that are larger. `is_lowered_better` decides, for a fit.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from tapeout.models.fitting import Fitted, correction
from tapeout.models.forms import Form, Parts
from tapeout.models.machine import Machine
from tapeout.models.tables import Table, joined, numbers_of

JUDGED_ROWS = 300
"""Rows that decide between raising and lowering."""
WORTH = 0.01
"""The error that lowering has to save, as its answers take longer."""


def evaluate(
    form: Form, of: Machine, fitted: Fitted, table: Table
) -> tuple[Parts, NDArray[np.float64], NDArray[np.bool_]]:
    """Parts of the form, seconds with the residual, never below the roofline, and which rows lie outside the hull."""
    parts = form.time(of, fitted.parameters, table)
    factor, outside = correction(form, of, fitted, table, parts)
    return parts, np.maximum(parts.seconds * factor, parts.roofline), outside


def lawful(form: Form, of: Machine, fitted: Fitted, table: Table, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """`seconds` of a table, changed where needed so that no doubled size takes less."""
    if fitted.residual is None:
        return seconds
    return (never_more if fitted.lowers else never_less)(form, of, fitted, table, seconds)


def is_lowered_better(form: Form, fitted: Fitted, sets: list[tuple[Machine, Table]]) -> bool:
    """Return whether lowering leaves a smaller error on rows than raising."""
    if fitted.residual is None:
        return False
    errors = {never_less: 0.0, never_more: 0.0}
    for of, table in sets:
        few = table.take(np.sort(np.random.default_rng(1).permutation(len(table))[:JUDGED_ROWS]))
        assert few.seconds is not None
        seconds = evaluate(form, of, fitted, few)[1]
        for law in errors:
            errors[law] += float(np.abs(law(form, of, fitted, few, seconds) / few.seconds - 1).mean())
    return errors[never_less] - errors[never_more] > WORTH * len(sets)


def never_less(
    form: Form, of: Machine, fitted: Fitted, table: Table, seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`seconds`, raised to those of every row with sizes halved where these are larger.

    A half whose form, with the most that the correction may add, is below the time of the row it came from cannot
    matter, nor can what it halves to; nor a size below all that were fitted, where the correction stands still. Rows
    that several others halve to are evaluated once, for the least of those times (`need`).
    """
    sizes = [name for name in form.sizes if name in table.columns]
    front, need = table, seconds
    tables, values = [table], [seconds]
    seen, seen_need = marks_of(table), seconds
    while len(front):
        halves, needs = [], []
        for name in sizes:
            halves_count = (front[name] > max(fitted.hull[name][0], 1)) & (front[name] % 2 == 0)
            if name == "num_heads" and "num_key_value_heads" in front.columns:
                halves_count &= front[name] >= 2 * front["num_key_value_heads"]  # fewer would be no attention
            chosen = np.flatnonzero(halves_count)
            if len(chosen):
                halved = _halved(front.take(chosen), name)
                formed = form.time(of, fitted.parameters, halved).seconds
                kept = np.flatnonzero(formed * np.exp(fitted.reach_of(formed)[1]) > need[chosen])
                halves.append(halved.take(kept))
                needs.append(need[chosen][kept])
        if not halves:
            break
        front, need = joined(halves), np.concatenate(needs)
        least_first = np.argsort(need, kind="stable")
        front, need = front.take(least_first), need[least_first]
        marks, first = np.unique(marks_of(front), return_index=True)
        order = np.argsort(seen, kind="stable")
        place = np.minimum(np.searchsorted(seen[order], marks), len(seen) - 1)
        known = order[place]
        is_new = (seen[known] != marks) | (need[first] < seen_need[known])
        front, need = front.take(first[is_new]), need[first[is_new]]
        if not len(front):
            break
        seen, seen_need = np.concatenate([marks_of(front), seen]), np.concatenate([need, seen_need])
        tables.insert(0, front)
        values.insert(0, evaluate(form, of, fitted, front)[1])
    everything, best = joined(tables), np.concatenate(values)
    order = np.argsort(seen, kind="stable")
    halves_of = []
    for name in sizes:
        rows = np.flatnonzero((everything[name] >= 2) & (everything[name] % 2 == 0))
        wanted = marks_of(_halved(everything.take(rows), name))
        place = np.minimum(np.searchsorted(seen[order], wanted), len(seen) - 1)
        known = seen[order][place] == wanted
        halves_of.append((rows[known], order[place[known]]))
    while True:
        before = best.copy()
        for rows, half in halves_of:
            best[rows] = np.maximum(best[rows], best[half])
        if (best == before).all():
            return best[len(best) - len(table) :]


def _halved(table: Table, name: str) -> Table:
    return Table(table.kind, table.dtype, dict(table.columns) | {name: table[name] / 2}, table.words)


def never_more(
    form: Form, of: Machine, fitted: Fitted, table: Table, seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`seconds`, lowered to those of every row with sizes doubled where these are smaller.

    A double whose form, with the least that the correction may add there or beyond, is above the time of the row it
    came from cannot matter, nor can what it doubles to; nor a size beyond all that were fitted which the form does not
    feel (the cache beyond a window). Rows that several others double to are evaluated once, for the
    largest of those times (`need`).
    """
    sizes = [name for name in form.sizes if name in table.columns]
    marks, places = np.unique(marks_of(table), return_index=True)
    front, need = table.take(places), seconds[places]
    tables, values, seen, seen_need = [front], [need], marks, need
    while True:
        doubles, needs = [], []
        before = form.time(of, fitted.parameters, front).seconds
        for name in sizes:
            doubled = _doubled(front, name)
            formed = form.time(of, fitted.parameters, doubled).seconds
            is_felt = (formed > before) | (front[name] <= fitted.hull[name][1])
            kept = np.flatnonzero(is_felt & (fitted.least_from(formed) < need))
            doubles.append(doubled.take(kept))
            needs.append(need[kept])
        front, need = joined(doubles), np.concatenate(needs)
        largest_first = np.argsort(-need, kind="stable")
        front, need = front.take(largest_first), need[largest_first]
        marks, first = np.unique(marks_of(front), return_index=True)
        place = np.minimum(np.searchsorted(seen, marks), len(seen) - 1)
        is_new = (seen[place] != marks) | (need[first] > seen_need[place])
        front, need, marks = front.take(first[is_new]), need[first[is_new]], marks[is_new]
        if not len(front):
            break
        found = evaluate(form, of, fitted, front)[1]
        tables.append(front)
        values.append(found)
        order = np.argsort(np.concatenate([marks, seen]), kind="stable")
        seen, seen_need = np.concatenate([marks, seen])[order], np.concatenate([need, seen_need])[order]
        need = np.minimum(need, found)
    everything, best = joined(tables), np.concatenate(values)
    marks = marks_of(everything)
    order = np.argsort(marks, kind="stable")
    ordered = marks[order]
    doubles_of = []
    for name in sizes:
        wanted = marks_of(_doubled(everything, name))
        place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        known = np.flatnonzero(ordered[place] == wanted)
        doubles_of.append((known, order[place[known]]))
    while True:
        before = best.copy()
        for rows, double in doubles_of:
            best[rows] = np.minimum(best[rows], best[double])
        if (best == before).all():
            break
    return best[order[np.searchsorted(ordered, marks_of(table))]]


def _doubled(table: Table, name: str) -> Table:
    return Table(table.kind, table.dtype, dict(table.columns) | {name: table[name] * 2}, table.words)


def marks_of(table: Table) -> NDArray[np.uint64]:
    """A number for each row that tells it from others."""
    mark = np.zeros(len(table), np.uint64)
    columns = [np.ascontiguousarray(values).view(np.uint64) for values in table.columns.values()]
    for values in table.words.values():
        columns.append(numbers_of(values, lambda word: zlib.crc32(word.encode())).astype(np.uint64))
    for column in columns:
        mark = (mark ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mark ^= mark >> np.uint64(29)
    return mark
