"""A Program made callable: object code from the cache or the functional simulator, launched on all host threads.

While time is kept (`tapeout.runtime.clock`) a launch is timed too; in timing alone it is timed and nothing else. Where
the time depends on data, the run notes them for the timing simulator.
"""

import ctypes
import functools
import hashlib
import struct
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tapeout import chip as chips
from tapeout.chip import Chip
from tapeout.errors import InternalError, LaunchError
from tapeout.host import file_cache as cache
from tapeout.host.features import host_fingerprint
from tapeout.isa import Program
from tapeout.numerics.dtypes import DType
from tapeout.runtime import native, sanitizer
from tapeout.runtime.counters import compilations
from tapeout.runtime.process import session
from tapeout.sim import analogue
from tapeout.sim.functional import machine
from tapeout.sim.functional.abi import FAILURES

if TYPE_CHECKING:
    from tapeout.sim.timing import FlatTrace

ALIGNMENT_BYTES_OF_TYPE = {
    **{dtype.triton_name: dtype.size_bytes for dtype in DType},
    **{f"u{dtype.bits}": dtype.size_bytes for dtype in (DType.I8, DType.I16, DType.I32, DType.I64)},
}


def _alignment(parameter_type: str) -> int:
    """Bytes a pointer must be a multiple of; 0 for a parameter that is no pointer."""
    if not parameter_type.startswith("*"):
        return 0
    element = parameter_type.lstrip("*").removeprefix("k")
    return 8 if parameter_type.startswith("**") else ALIGNMENT_BYTES_OF_TYPE.get(element, 1)


def _word_format(parameter_type: str) -> str:
    """Return how `struct` packs an argument: pointers and bits of floats have no sign."""
    return "q" if parameter_type[:1] == "i" else "Q"


class TimedKernel:
    """A Program for one chip of which launches are timed, not executed."""

    def __init__(self, program: Program, chip: Chip):
        self.program = program
        self.chip = chip
        types = [parameter.type for parameter in program.parameters]
        self._pack = struct.Struct("<3q" + "".join(map(_word_format, types))).pack

    def launch(self, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        """Run all programs of the grid and return when the last is done.

        `arguments` are raw 64-bit words in the order of the program's parameters: pointers as addresses, integers as
        their value, floats as their bits. Raises LaunchError for words that are none, for an argument the kernel
        cannot run on, an access outside HBM, or a failed assertion.
        """
        if session.launcher is not None:
            session.launcher(self, grid, arguments)
        else:
            self.execute(grid, arguments)

    def execute(self, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        """Launch without a stand-in: here, let the chip's time pass."""
        words = self._words(grid, arguments)
        if min(grid) > 0:
            self._keep_time(words)

    def _words(self, grid: tuple[int, int, int], arguments: Sequence[int]) -> bytes:
        try:
            return self._pack(*grid, *arguments)
        except struct.error as error:
            raise self._bad_arguments(grid, arguments, error) from None

    @functools.cached_property
    def _keep_time(self) -> Callable[..., None]:
        from tapeout.runtime import launch_times  # brings the timing simulator, which most processes never need

        return functools.partial(launch_times.launch, launch_times.timed(self.program, self.chip))

    def _bad_arguments(self, grid: tuple[int, int, int], arguments: Sequence[int], error: Exception) -> LaunchError:
        wanted = len(self.program.parameters)
        if len(arguments) != wanted:
            names = ", ".join(p.name for p in self.program.parameters)
            return LaunchError(f"{self.program.name}: {len(arguments)} arguments given, {wanted} needed: {names}")
        words = f"grid {grid} and arguments {tuple(arguments)}"
        return LaunchError(f"{self.program.name}: {words} are not 64-bit words: {error}")


class Kernel(TimedKernel):
    """Machine code of a Program for one chip. Launches of all kernels of a process run one after the other."""

    def __init__(self, program: Program, chip: Chip, code: bytes, checked: bool = False):
        super().__init__(program, chip)
        self._keep, entry = machine.load_object(code)
        library = native.library()
        library.tapeout_need_scratchpad(max(program.scratchpad_bytes, chip.core.scratchpad.size_bytes))
        types = [parameter.type for parameter in program.parameters]
        alignment = (ctypes.c_int64 * len(types))(*map(_alignment, types))
        handle = library.tapeout_kernel(
            entry,
            len(types),
            ctypes.addressof(alignment),
            program.scratchpad_bytes,
            program.workspace_bytes,
            int(program.order_free),
            int(checked),
        )
        weakref.finalize(self, library.tapeout_free_kernel, handle).atexit = False  # threads may use it until the end
        self._handle = handle
        self._launch = library.tapeout_launch

    def execute(self, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        try:
            words = self._pack(*grid, *arguments)
        except struct.error as error:
            raise self._bad_arguments(grid, arguments, error) from None
        if session.clock is not None and min(grid) > 0:
            if self._needs_data:
                with _notes_lock:
                    self._keep_time(words, *self._launch_noting(words, arguments))
                return
            self._keep_time(words)
        if self._launch(self._handle, words):
            raise self._failure(arguments)

    def launch_noting(self, grid: tuple[int, int, int], arguments: Sequence[int]) -> "FlatTrace | None":
        """Launch, keep no time, and give what the program read that its time depends on; None if that is too much."""
        with _notes_lock:
            _, notes = self._launch_noting(self._words(grid, arguments), arguments)
            return notes() if notes else None

    def _launch_noting(
        self, words: bytes, arguments: Sequence[int]
    ) -> "tuple[bytes | None, Callable[[], FlatTrace] | None]":
        """Launch, and give a digest of what its time depends on and, to be called before another launch notes, that."""
        digest = _Digest()
        failure = native.library().tapeout_launch_noting(self._handle, words, digest)
        if failure > 0:
            raise self._failure(arguments)
        return (None, None) if failure else (digest.raw, _latest_notes)

    @functools.cached_property
    def _needs_data(self) -> bool:
        from tapeout.sim import timing

        return timing.program_needs_data(self.program)

    def _failure(self, arguments: Sequence[int]) -> Exception:
        words = (ctypes.c_int64 * 10)()
        native.library().tapeout_failure(ctypes.addressof(words))
        kind, detail, index, *place = words[:6]
        if kind >= len(FAILURES):
            return sanitizer.describe(self.program, arguments, [kind - len(FAILURES), *words[1:]])
        program, name = self.program, self.program.name
        where = f"program ({', '.join(map(str, place))})"
        match FAILURES[kind]:
            case "trap":
                message = program.messages[detail] if detail < len(program.messages) else f"trap {detail}"
                return LaunchError(f"{name}: {where}: {message}")
            case "outside_hbm":
                item = program.instructions[index]
                return LaunchError(
                    f"{program.location(index)}: {name}: {where}: {item.mnemonic} at {detail:#x} is outside HBM; "
                    "check the offsets and the mask of this access"
                )
            case "endless_wait":
                return LaunchError(
                    f"{program.location(index)}: {name}: {where} waits in this loop for memory that only another "
                    "program can change. Programs of a grid run in order, each to its end before a core takes the "
                    "next, so a kernel must not need a later program, or all of them at once; split it into several "
                    "launches"
                )
            case "foreign_pointer" if (elsewhere := session.chip_that_holds(detail)) is not None:
                return LaunchError(
                    f"{name}: argument {program.parameters[index].name!r} is in the memory of chip:{elsewhere}, and "
                    f"the kernel runs on chip:{chips.current_index()}: launch it within `with "
                    f"torch.chip.device({elsewhere})`, or move the tensor"
                )
            case "foreign_pointer":
                return LaunchError(
                    f"{name}: argument {program.parameters[index].name!r} is a foreign pointer ({detail:#x}): it does "
                    "not point into the chip's memory; move the tensor with .to('chip')"
                )
            case "misaligned_pointer":
                parameter = program.parameters[index]
                return LaunchError(
                    f"{name}: argument {parameter.name!r} ({parameter.type}) is misaligned: {detail:#x} is not a "
                    f"multiple of {_alignment(parameter.type)}"
                )
        return InternalError(f"{name}: failure of unknown kind {kind}")


_notes_lock = threading.Lock()
"""Held from a launch that notes until its notes are read: those of one launch are kept."""

_Digest = ctypes.c_char * 16


def _latest_notes() -> "FlatTrace":
    from tapeout.sim.timing import FlatTrace

    library = native.library()
    record = library.tapeout_record()
    count = len(fields(FlatTrace))
    addresses, lengths = (ctypes.c_void_p * count)(), (ctypes.c_int64 * count)()
    library.tapeout_record_arrays(record, addresses, lengths)
    arrays = [
        np.frombuffer(ctypes.string_at(address, 8 * length) if length else b"", np.int64)
        for address, length in zip(addresses, lengths, strict=True)
    ]
    library.tapeout_free_record(record)
    return FlatTrace(*arrays)


@functools.cache
def _simulator_fingerprint() -> str:
    """Changes with every source file that has a part in object code."""
    package = Path(machine.__file__).parent
    files = [*package.glob("*.py"), *package.parent.parent.joinpath("numerics").glob("*.py")]
    files += package.parent.parent.joinpath("isa").glob("*.py")
    digest = hashlib.sha256(host_fingerprint().encode())
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def load(program: Program, chip: Chip) -> TimedKernel:
    """The kernel of a program, its object code compiled now or taken from the cache; no code in timing alone."""
    if session.timing_only:
        return TimedKernel(program, chip)
    checks = sanitizer.checks_of_a_kernel()
    facts = (program.encode(), chip.fingerprint().encode(), _simulator_fingerprint().encode(), repr(checks).encode())
    key = hashlib.sha256(b"\0".join(facts)).hexdigest()
    code = cache.entry("objects", key)
    if code is None:
        from tapeout.sim.functional.translate import translate  # needed only if there is no object code yet

        code = machine.compile_object(translate(program, checks, analogue.of_chip(chip)))
        cache.store("objects", key, code)
        compilations.compiled += 1
    else:
        compilations.loaded += 1
    return Kernel(program, chip, code, checks is not None)
