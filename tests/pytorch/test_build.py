"""Building the shim: once, whole, and with a sentence that helps when it cannot be built."""

import _ctypes
import threading
import time
from pathlib import Path

import pytest

from tapeout.pytorch import build


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """A cache of its own, and a compiler that copies some shared library; gives the list of its runs."""
    runs = []

    def copy_instead(compiler, target):
        runs.append(target)
        time.sleep(0.05)
        target.write_bytes(Path(_ctypes.__file__).read_bytes())

    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "_compile", copy_instead)
    return runs


def test_a_source_is_built_once(compiled):
    assert build.library() == build.library()
    assert len(compiled) == 1


def test_concurrent_builds_build_once(compiled):
    threads = [threading.Thread(target=build.library) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1


def test_another_source_is_another_library(compiled, monkeypatch, tmp_path):
    first = build.library()
    changed = tmp_path / "shim.cpp"
    changed.write_text(build.SOURCE.read_text() + "\n")
    monkeypatch.setattr(build, "SOURCE", changed)
    assert build.library() != first


def test_a_truncated_library_is_built_again(compiled):
    build.library().write_bytes(b"\x7fELF")
    assert build.load().PyInit__ctypes
    assert len(compiled) == 2


def test_without_a_compiler_a_built_library_still_loads(compiled, monkeypatch):
    built = build.library()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert build.library() == built


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.BuildError, match=r"needs a C\+\+ compiler once.*apt-get install g\+\+"):
        build.library()


def test_a_failing_compiler_is_quoted(monkeypatch, tmp_path):
    broken = tmp_path / "shim.cpp"
    broken.write_text("#error this is no shim\n")
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "SOURCE", broken)
    with pytest.raises(build.BuildError, match="this is no shim"):
        build.library()
    assert not list(tmp_path.rglob("*.so")) and not list(tmp_path.rglob("*.unfinished"))
