"""A cached directory is whole or absent."""

import pytest

from tapeout.host import disk_cache


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_made_once(cache):
    calls = []

    def make(place):
        calls.append(place)
        (place / "weights").write_text("42")

    first = disk_cache.made_once("models/m", make)
    assert disk_cache.made_once("models/m", make) == first == cache / "models" / "m"
    assert (first / "weights").read_text() == "42"
    assert len(calls) == 1


def test_a_failure_half_way_leaves_nothing(cache):
    def make(place):
        (place / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disk_cache.made_once("models/m", make)
    assert list((cache / "models").iterdir()) == []


def test_losing_a_race_keeps_the_winner(cache):
    def make(place):
        winner = cache / "models" / "m"
        winner.mkdir()
        (winner / "by").write_text("another")
        (place / "by").write_text("us")

    assert (disk_cache.made_once("models/m", make) / "by").read_text() == "another"
    assert [path.name for path in (cache / "models").iterdir()] == ["m"]
