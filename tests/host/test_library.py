"""C++ parts: built once, whole, and with a sentence that helps when they cannot be built."""

import re
import threading

import pytest

from tapeout.host import file_cache, library
from tapeout.host.library import BuildError, Library, build, load


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """A cache of its own, and two small sources: one includes a header, the other a generated one."""
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "three.h").write_text("constexpr int three = 3;\n")
    (tmp_path / "one.cpp").write_text(
        '#include "three.h"\nextern "C" int sum();\nextern "C" int one() { return sum(); }\n'
    )
    (tmp_path / "two.cpp").write_text(
        '#include "four.h"\n#include <cstddef>\nextern "C" int sum() { return 3 + four; }\n'
    )
    return tmp_path


def small(folder, four="constexpr int four = 4;\n"):
    return Library("test part", (folder / "one.cpp", folder / "two.cpp"), ("-O0",), generated={"four.h": four})


@pytest.fixture
def compiled(monkeypatch):
    """Names of the files that were compiled, and of the libraries that were linked."""
    runs = []

    def run(command, what):
        runs.append(what)
        really(command, what)

    really = library._run
    monkeypatch.setattr(library, "_run", run)
    return runs


WHOLE = ["one.cpp of its test part", "two.cpp of its test part", "its test part"]


def test_a_library_is_built_once_and_says_so(sources, compiled, capfd):
    assert load(small(sources)).one() == 7
    assert load(small(sources)).one() == 7
    assert sorted(compiled) == sorted(WHOLE)
    assert capfd.readouterr().err == "Building Tapeout's test part, once; about a minute\n"


def test_concurrent_builds_build_once(sources, compiled):
    threads = [threading.Thread(target=build, args=([small(sources)],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(compiled) == sorted(WHOLE)


def test_only_what_changed_is_compiled_again(sources, compiled):
    build([small(sources)])
    compiled.clear()
    assert load(small(sources, four="constexpr int four = 5;\n")).one() == 8
    assert compiled == ["two.cpp of its test part", "its test part"]
    compiled.clear()
    (sources / "three.h").write_text("constexpr int three = 4;\n")
    build([small(sources)])
    assert compiled == ["one.cpp of its test part", "its test part"]


def test_a_truncated_library_is_linked_again(sources, compiled):
    build([small(sources)])
    file_cache.found(library.FOLDER, small(sources).key, ".so").write_bytes(b"\x7fELF")
    compiled.clear()
    assert load(small(sources)).one() == 7
    assert compiled == ["its test part"]


def test_a_compiler_is_needed_once(sources, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        with pytest.raises(BuildError) as refused:
            build([small(sources)])
    assert str(refused.value) == (
        "Tapeout needs a C++ compiler once, to build its test part, and found neither $CXX, g++, clang++ nor c++ in "
        "PATH. Install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; "
        "conda: conda install gxx) and try again"
    )
    build([small(sources)])
    monkeypatch.setenv("PATH", "")
    assert load(small(sources)).one() == 7


def test_a_failing_compiler_is_quoted_and_leaves_nothing(sources):
    (sources / "two.cpp").write_text("#error this is no part\n")
    with pytest.raises(BuildError, match=r"^Tapeout cannot build two.cpp of its test part: .*\n.*this is no part"):
        build([small(sources)])
    left = {path.name for path in (sources / "cache").rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"lock|\w+\.o(\.sha256)?", name) for name in left)


def test_a_cache_that_is_a_file_is_named(sources, monkeypatch):
    (sources / "file").write_text("")
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(sources / "file"))
    with pytest.raises(BuildError) as refused:
        build([small(sources)])
    assert str(refused.value) == (
        f"Tapeout keeps what it builds in {sources / 'file'} and cannot write there: Not a directory. "
        "Set TAPEOUT_CACHE_DIR to a folder that can be written"
    )


def test_a_full_disk_is_named(sources, monkeypatch):
    compiler = sources / "full"
    compiler.write_text("#!/bin/sh\necho 'fatal error: error writing to x.s: No space left on device' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(
        BuildError, match=r"^the disk is full: Tapeout cannot build \w+.cpp of its test part in .*Free some"
    ):
        build([small(sources)])


def test_on_a_terminal_the_files_are_named(sources, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    build([small(sources)])
    shown = capsys.readouterr().err
    assert shown.startswith("Building Tapeout's test part, once; about a minute\n\r\033[K  0 of 2 files; compiling ")
    assert "1 of 2 files" in shown and shown.endswith("\r\033[K")
