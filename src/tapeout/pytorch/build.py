"""Builds and loads the C++ shim, once per source, torch and compiler.

Takes shim.cpp and the installed torch; gives the path of a shared library in the user's cache directory, or a
`BuildError` that says what to install. A library is published by renaming a finished file, under a lock, so
concurrent processes and killed builds leave either a whole library or none.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from tapeout.errors import TapeoutError
from tapeout.host import disk_cache

SOURCE = Path(__file__).with_name("shim.cpp")
FLAGS = ("-O2", "-shared", "-fPIC", "-std=c++20", "-fvisibility=hidden", "-DUSE_KINETO", "-DFMT_HEADER_ONLY")


class BuildError(TapeoutError):
    """The C++ part of the device could not be built or loaded."""


def library() -> Path:
    """The built shim. Builds it if this source has not been built for this torch with this compiler."""
    directory = disk_cache.directory() / "shim"
    compiler = _find_compiler()
    source_key = _digest(SOURCE.read_text(), torch.__version__, *FLAGS, *_abi_flags())
    if compiler is None:
        built = sorted(directory.glob(f"{source_key}-*.so"))
        if built:
            return built[0]
        raise BuildError(
            "the chip device needs a C++ compiler once, to build its shim, and found neither $CXX, g++ nor c++ "
            "in PATH. Install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; "
            "conda: conda install gxx) and try again"
        )
    target = directory / f"{source_key}-{_digest(_banner(compiler))}.so"
    if not target.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with open(target.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _compile(compiler, target)
    return target


def load() -> ctypes.CDLL:
    """The shim, loaded. A library that does not load (a truncated file, say) is built again, once."""
    path = library()
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)
    path = library()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the chip device's shim {path} was built but does not load: {error}") from error


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _abi_flags() -> tuple[str, ...]:
    return (f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",)


def _find_compiler() -> str | None:
    candidates = [os.environ.get("CXX"), "g++", "c++"]
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def _banner(compiler: str) -> str:
    found = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return f"{compiler}\0{found.stdout}"


def _compile(compiler: str, target: Path) -> None:
    root = Path(torch.__file__).parent
    handle, unfinished = tempfile.mkstemp(dir=target.parent, suffix=".unfinished")
    os.close(handle)
    include = root / "include"
    command = [
        compiler,
        *FLAGS,
        *_abi_flags(),
        f"-I{include}",
        f"-I{include / 'kineto'}",
        str(SOURCE),
        "-o",
        unfinished,
    ]
    command += [f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise BuildError(
                f"the chip device's shim does not compile with {compiler} against torch {torch.__version__}; "
                f"it needs a compiler that knows C++20 (g++ 11 or newer). The compiler said:\n{result.stderr}"
            )
        os.replace(unfinished, target)
    finally:
        Path(unfinished).unlink(missing_ok=True)
