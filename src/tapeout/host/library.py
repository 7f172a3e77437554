"""C++ of Tapeout's own, built at first use for this host and kept in the cache.

A library is several sources. Each is compiled to an object file that is kept too, so that a new version of Tapeout
compiles what changed in it. Everything appears whole or not at all, and one process builds at a time.
"""

import ctypes
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tapeout.errors import TapeoutError
from tapeout.host import disk_cache, file_cache
from tapeout.host.features import host_features, host_fingerprint

FOLDER = "cxx"
ALWAYS = ("-std=c++20", "-fPIC")
EXACT = ("-O3", "-ffp-contract=off", "-fwrapv", "-fno-math-errno", "-fno-trapping-math", "-pthread")
"""Compiler flags for code that computes what the chip computes, bit for bit."""


class BuildError(TapeoutError):
    """A C++ part of Tapeout could not be built or loaded."""


@dataclass(frozen=True)
class Library:
    """C++ that becomes one shared library.

    `name`: what users know it as. `generated`: texts of the headers that are written when it is built, by file name;
    other headers lie beside the sources. `facts`: what else its object code depends on.
    """

    name: str
    sources: Sequence[Path]
    flags: Sequence[str]
    link_flags: Sequence[str] = ()
    generated: Mapping[str, str] = field(default_factory=dict)
    facts: Sequence[str] = ()

    def object_key(self, source: Path) -> str:
        """Names the object file of a source: what it says, what it includes of ours, and how it is compiled."""
        return _digest(*_own_text(source, self.generated), *ALWAYS, *self.flags, *self.facts)

    @functools.cached_property
    def key(self) -> str:
        return _digest(*map(self.object_key, self.sources), *self.link_flags)


def for_this_host(name: str, sources: Sequence[Path], header: str) -> Library:
    """A library that uses this host's vector units and includes `header` as "abi.h"."""
    flags = (*EXACT, *host_features().compiler_flags)
    return Library(name, sources, flags, generated={"abi.h": header}, facts=(host_fingerprint(),))


def load(library: Library) -> ctypes.CDLL:
    """The library, loaded; built first if it is not in the cache."""
    build([library])
    try:
        return ctypes.CDLL(str(place(library)))
    except OSError as error:
        raise BuildError(f"Tapeout's {library.name} was built but does not load: {error}") from error


def place(library: Library) -> Path:
    """Return where a library that has been built is."""
    found = file_cache.found(FOLDER, library.key, ".so")
    if found is None:
        raise BuildError(f"Tapeout's {library.name} is not in {disk_cache.directory()} any more; start again")
    return found


def build(libraries: Sequence[Library]) -> None:
    """Put those libraries into the cache that are not there. Says so on the standard error output, as it takes long."""
    if not _missing(libraries):
        return
    names = " and ".join(library.name for library in libraries)
    try:
        with _only_builder(names):
            if missing := _missing(libraries):
                _build(missing)
    except OSError as error:
        raise BuildError(
            f"Tapeout keeps what it builds in {disk_cache.directory()} and cannot write there: {error.strerror}. "
            f"Set {disk_cache.CACHE_VARIABLE} to a folder that can be written"
        ) from error


def _missing(libraries: Sequence[Library]) -> list[Library]:
    return [library for library in libraries if file_cache.found(FOLDER, library.key, ".so") is None]


@contextmanager
def _only_builder(names: str) -> Iterator[None]:
    """Waits until no other process builds."""
    folder = disk_cache.directory() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process, which builds Tapeout's {names}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(libraries: Sequence[Library]) -> None:
    names = " and ".join(library.name for library in libraries)
    compiler = _compiler(names)
    jobs = [
        (library, source)
        for library in libraries
        for source in library.sources
        if file_cache.found(FOLDER, library.object_key(source), ".o") is None
    ]
    jobs.sort(key=lambda job: job[1].stat().st_size, reverse=True)
    progress = _Progress(f"Building Tapeout's {names}, once; about a minute", [source.name for _, source in jobs])
    with progress, ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        running = {pool.submit(_compile, compiler, library, source): source.name for library, source in jobs}
        try:
            for done in as_completed(running):
                done.result()
                progress.finish(running[done])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for library in libraries:
        _link(compiler, library)


def _compiler(names: str) -> str:
    candidates = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    found = next((path for name in candidates if name and (path := shutil.which(name))), None)
    if found is None:
        raise BuildError(
            f"Tapeout needs a C++ compiler once, to build its {names}, and found neither $CXX, g++, clang++ nor c++ in "
            "PATH. Install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; "
            "conda: conda install gxx) and try again"
        )
    return found


def _compile(compiler: str, library: Library, source: Path) -> Path:
    def compile_to(target: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in library.generated.items():
                (Path(folder) / name).write_text(text)
            command = [compiler, *ALWAYS, *library.flags, f"-I{folder}", "-c", str(source), "-o", str(target)]
            _run(command, f"{source.name} of its {library.name}")

    return file_cache.file(FOLDER, library.object_key(source), ".o", compile_to)


def _link(compiler: str, library: Library) -> Path:
    def link_to(target: Path) -> None:
        objects = [str(_compile(compiler, library, source)) for source in library.sources]
        command = [compiler, "-shared", "-pthread", *objects, "-o", str(target), *library.link_flags]
        _run(command, f"its {library.name}")

    return file_cache.file(FOLDER, library.key, ".so", link_to)


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return
    if "No space left on device" in done.stderr:
        raise BuildError(
            f"the disk is full: Tapeout cannot build {what} in {disk_cache.directory()} (or in "
            f"{tempfile.gettempdir()}). Free some space, or set {disk_cache.CACHE_VARIABLE} to a folder elsewhere"
        )
    raise BuildError(
        f"Tapeout cannot build {what}: it needs a compiler that knows C++20 (g++ 11 or newer), and {command[0]} "
        f"failed. {' '.join(command)}\n{done.stderr.strip()}"
    )


def _own_text(source: Path, generated: Mapping[str, str]) -> list[str]:
    """The source and what it includes of Tapeout's own, in the order of first mention."""
    texts: dict[str, str] = {}
    wanted = [source.name]
    while wanted:
        name = wanted.pop()
        if name not in texts:
            texts[name] = generated[name] if name in generated else source.with_name(name).read_text("utf-8")
            wanted += re.findall(r'^#include "(.+)"', texts[name], re.MULTILINE)
    return list(texts.values())


def _digest(*parts: str) -> str:
    key = hashlib.sha256()
    for part in parts:
        key.update(hashlib.sha256(part.encode()).digest())
    return key.hexdigest()[:32]


class _Progress:
    """One line that says what is done and, on a terminal, another that says how far it is."""

    def __init__(self, title: str, names: Sequence[str]):
        self.title = title
        self.names = list(names)
        self.count = len(names)
        self.is_shown = sys.stderr.isatty()

    def __enter__(self) -> "_Progress":
        print(self.title, file=sys.stderr, flush=True)
        self._show()
        return self

    def finish(self, name: str) -> None:
        self.names.remove(name)
        self._show()

    def _show(self) -> None:
        if self.is_shown and self.names:
            line = f"  {self.count - len(self.names)} of {self.count} files; compiling {', '.join(self.names)}"
            print(f"\r\033[K{line[:79]}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exception: object) -> None:
        if self.is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
