"""Vector units of this host that Tapeout's machine code uses: object code of kernels and C++ alike.

TAPEOUT_HOST_FEATURES lowers them, so that what runs on an older host can be tested and measured on a newer one. Results
are the same bits on all of them.
"""

import functools
import hashlib
import os
import platform
from dataclasses import dataclass

import llvmlite
import llvmlite.binding as llvm

from tapeout.errors import TapeoutError

VARIABLE = "TAPEOUT_HOST_FEATURES"

_AVX2 = ("avx2", "f16c", "fma")
_NEEDS = {"avx512": (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl"), "avx2": _AVX2, "baseline": ()}
"""Levels of an x86-64 host from the highest, and the features of the CPU that tell each. Other hosts have one level,
baseline: what every CPU of their architecture has."""

_PROCESSOR = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "baseline": "x86-64"}


@dataclass(frozen=True)
class HostFeatures:
    """A level, and how compilers are told of it. `vector_bytes`: size of a register. `cpu` and `attributes`: LLVM's
    names of the processor and its features. `has_half_conversions`: float16 to float32 and back in hardware."""

    level: str
    vector_bytes: int
    cpu: str
    attributes: str
    compiler_flags: tuple[str, ...]
    has_half_conversions: bool


def levels() -> tuple[str, ...]:
    """Return what this host can run, the highest first."""
    if not _is_x86():
        return ("baseline",)
    present = llvm.get_host_cpu_features()
    return tuple(level for level, needed in _NEEDS.items() if all(present.get(name) for name in needed))


def chosen_level() -> str:
    """TAPEOUT_HOST_FEATURES, or the highest level of this host. Raises TapeoutError for one not known or not there."""
    available = levels()
    wanted = os.environ.get(VARIABLE)
    if wanted is None or wanted in available:
        return wanted or available[0]
    if wanted in _NEEDS:
        raise TapeoutError(f"{VARIABLE}={wanted!r} is more than this host has; {_listed(available)} can be chosen here")
    raise TapeoutError(f"{VARIABLE}={wanted!r} is no set of host features; {_listed(tuple(_NEEDS))} is allowed")


@functools.cache
def host_features() -> HostFeatures:
    """The features in use, decided once for a process."""
    level = chosen_level()
    is_x86 = _is_x86()
    vector_bytes = {"avx512": 64, "avx2": 32, "baseline": 16}[level]
    has_half_conversions = level != "baseline" or not is_x86
    if level == levels()[0] and not (is_x86 and level == "baseline"):
        present = llvm.get_host_cpu_features()
        if level == "avx512":
            present["prefer-256-bit"] = False  # vectors of full width wherever they exist
        attributes, cpu = present.flatten(), llvm.get_host_cpu_name()
        return HostFeatures(level, vector_bytes, cpu, attributes, ("-march=native",), has_half_conversions)
    cpu = _PROCESSOR[level]
    attributes = "-prefer-256-bit" if level == "avx512" else ""
    return HostFeatures(level, vector_bytes, cpu, attributes, (f"-march={cpu}",), has_half_conversions)


def host_fingerprint() -> str:
    """Changes when machine code made here might not be right elsewhere, or is for other vector units."""
    facts = (host_features(), llvmlite.__version__, llvm.llvm_version_info)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _listed(names: tuple[str, ...]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
