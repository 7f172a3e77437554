"""Counts of work: kernels compiled and launched, instructions by engine, bytes to and from HBM, since start or
`reset`."""

import ctypes
from dataclasses import dataclass
from types import MappingProxyType

from tapeout.runtime import native
from tapeout.sim.functional import abi

ENGINES = ("sequencer", "load", "store", "matrix", "vector")


@dataclass(frozen=True)
class Counters:
    """Totals at one moment. `kernels_loaded`: those whose object code came from the disk cache."""

    kernels_compiled: int
    kernels_loaded: int
    kernels_launched: int
    instructions_by_engine: MappingProxyType[str, int]
    hbm_read_bytes: int
    hbm_written_bytes: int


@dataclass
class _Compilations:
    compiled: int = 0
    loaded: int = 0


compilations = _Compilations()
"""Counted by `tapeout.runtime.load`."""


def snapshot() -> Counters:
    words = (ctypes.c_int64 * (len(abi.COUNTERS) + 1))()
    native.library().tapeout_counters(ctypes.addressof(words))
    by_name = dict(zip(abi.COUNTERS, words, strict=False))
    return Counters(
        kernels_compiled=compilations.compiled,
        kernels_loaded=compilations.loaded,
        kernels_launched=words[len(abi.COUNTERS)],
        instructions_by_engine=MappingProxyType({engine: by_name[engine] for engine in ENGINES}),
        hbm_read_bytes=by_name["hbm_read_bytes"],
        hbm_written_bytes=by_name["hbm_written_bytes"],
    )


def reset() -> None:
    compilations.compiled = compilations.loaded = 0
    native.library().tapeout_reset_counters()
