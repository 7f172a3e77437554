"""The search: it holds the clauses, goes on after a kill, and its ranking is checked."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("optuna", reason="the extra `explore` is not installed")

from tapeout import chip
from tapeout.exploration import search
from tapeout.exploration.space import SpaceError
from tapeout.report import exploration as report
from tapeout.report.page import to_html, to_json, to_text
from tests.exploration import made_up

LIMITS = search.Limits(candidates=60, fitted=14, checked=8, prices=True)

ENOUGH_BYTES = 30_000
"""Of the journal, before the search is killed: some ten candidates."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, made_up.explored(folder, LIMITS)


def test_the_front_holds_every_clause_and_nothing_betters_it(found):
    _, result = found
    assert result.feasible and result.front
    for each in result.front:
        assert each.figures.is_feasible and each.figures.values["area_mm2"] <= 450
        assert "outside 3A090" in each.figures.export
        wanted = [each.figures.values[name] for name in ("speed_per_usd", "speed")]
        others = [[other.figures.values[name] for name in ("speed_per_usd", "speed")] for other in result.front]
        assert not any(all(b >= a for a, b in zip(wanted, other, strict=True)) and other != wanted for other in others)


def test_the_ranking_is_checked(found):
    _, result = found
    assert result.correlation["decode"] > 0.95 and result.correlation["speed"] > 0.95
    assert all(each.simulated for each in result.checked) and len(result.checked) >= 4
    assert all(error < 0.1 for error in result.fit.error.values())


def test_a_clause_costs_what_the_best_without_it_gains(found):
    _, result = found
    assert [each.clause for each in result.prices] == list(result.space.clauses[:-1])
    assert all(each.without_it >= each.with_it for each in result.prices)


def test_the_chips_are_written(found):
    folder, result = found
    for each in result.front:
        made = chip.load(folder / "chips" / f"inference-{each.number}.toml")
        assert {place: search_value(made, place) for place in each.chosen} == dict(each.chosen)


def search_value(made, place):
    from tapeout.chip.changing import value_of

    return value_of(made, place)


def test_the_page_says_it(found):
    page = report.page(found[1])
    text = to_text(page)
    assert "Spearman" in text and "What each clause costs" in text and "holds" not in text.splitlines()[0]
    assert json.loads(to_json(page))["schema"] == "tapeout.exploration/1" and "<circle" in to_html(page)


def test_a_search_that_is_done_asks_nothing_again(found, monkeypatch):
    folder, result = found
    told = []
    again = made_up.explored(folder, LIMITS, progress=lambda word, done, whole: told.append(word))
    assert again.judged == result.judged and not any(word.startswith("candidates, ") for word in told)
    assert [each.number for each in again.front] == [each.number for each in result.front]


def test_another_search_is_refused_in_the_same_folder(found):
    folder, _ = found
    with pytest.raises(SpaceError, match="holds another search"):
        made_up.explored(folder, LIMITS, made_up.TEXT.replace("most = 450", "most = 440"))


def test_a_kill_loses_nothing_done(tmp_path):
    command = [sys.executable, "-m", "tests.exploration.made_up", str(tmp_path), "100000"]
    with subprocess.Popen(command) as process:
        journal = tmp_path / search.JOURNAL
        while not journal.exists() or len(journal.read_bytes()) < ENOUGH_BYTES:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    kept = _finished(journal)
    assert kept > 5
    result = made_up.explored(tmp_path, search.Limits(candidates=kept + 5, fitted=8, checked=4))
    assert _finished(journal) == kept + 5 and result.feasible


def _finished(journal):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    trials = optuna.load_study(study_name="all clauses", storage=storage).get_trials()
    return sum(trial.state.is_finished() for trial in trials)


def test_rank_correlation():
    assert search.spearman([1, 2, 3], [10, 20, 30]) == 1
    assert search.spearman([1, 2, 3], [3, 2, 1]) == -1
    assert search.spearman([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(0.9487, abs=1e-4)
    assert math.isnan(search.spearman([1, 1], [1, 2]))


def test_a_second_round_fits_the_forms_to_what_the_first_checked(tmp_path):
    limits = search.Limits(candidates=24, fitted=6, checked=4, rounds=2)
    result = made_up.explored(tmp_path, limits)
    assert result.front and result.judged >= 20
    assert len(result.checked) >= 2 and all(each.simulated for each in result.checked)
    assert result.simulated_chips > 1 + 6 + len(result.checked)  # the base, those drawn, and the first round's
    assert set(result.correlation) == {"decode", "speed"}
