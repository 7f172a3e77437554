"""The sanitizer: kernels are checked while they run, and the first mistake found is raised with its place.

`TAPEOUT_SANITIZE=1` (or `enable`, before the device is first used) finds accesses outside every tensor, reads of memory
that nothing has written, and races between programs of a grid; `TAPEOUT_SANITIZE=values` also finds where NaNs and
infinities are born. Programs then run one after the other on one host thread, and every instruction by itself.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Any

from tapeout.errors import SanitizerError, TapeoutError
from tapeout.isa import Program
from tapeout.runtime import native
from tapeout.runtime.process import session
from tapeout.sim.functional.abi import FINDINGS
from tapeout.sim.functional.checks import Checks

VARIABLE = "TAPEOUT_SANITIZE"
CHOICES = {"": None, "0": None, "1": Checks(), "values": Checks(values=True)}
RED_ZONE_BYTES = 512
"""Kept free behind every block, so that what runs over its end does not land in the next."""

_HOW = ("wrote", "read", "updated")


def checks() -> Checks | None:
    """Return what is checked, or None."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in CHOICES:
        raise TapeoutError(f"{VARIABLE}={wanted!r} is not a choice; 1 and values are, and 0 for no checks")
    return CHOICES[wanted]


def checks_of_a_kernel() -> Checks | None:
    """Return what is checked in a kernel loaded now. Raises TapeoutError if tensors exist that the sanitizer has not
    seen."""
    wanted = checks()
    if wanted is not None and session.find_block is None:
        raise TapeoutError(f"{VARIABLE} was set too late: the sanitizer must be on before the chip is first used")
    return wanted


def enable(values: bool = False) -> None:
    """Check kernels from now on, as the environment variable does. To be called before the device is first used."""
    os.environ[VARIABLE] = "values" if values else "1"


def watch(find_block: Any) -> Any:
    """Start watching the HBM that `session` knows, of which nothing may have been handed out yet. `find_block` is the C
    function that gives the start and size of the live block that holds an address. Gives the C function to be told of
    every new block."""
    session.watch_blocks(find_block)
    library = native.library()
    library.tapeout_sanitize(ctypes.cast(find_block, ctypes.c_void_p))
    return library.tapeout_mark_unwritten


def describe(program: Program, arguments: Sequence[int], words: Sequence[int]) -> SanitizerError:
    """The error for what the native runtime found: finding, address, instruction, program, how, other program."""
    finding, address, index = FINDINGS[words[0]], words[1], words[2]
    place, how, other = tuple(words[3:6]), words[6], tuple(words[7:10])
    item = program.instructions[index]
    at = f"{address:#x}"
    match finding:
        case "outside_every_tensor":
            sentence = f"{item.mnemonic} at {at} is outside every tensor{_nearest(program, arguments, address)}"
        case "never_written":
            sentence = f"{item.mnemonic} reads {at}, which nothing has written{_inside(program, arguments, address)}"
        case "scratchpad_never_written":
            sentence = f"{item.mnemonic} reads scratchpad byte {at}, which this program has not written"
        case "race":
            sentence = (
                f"race: {item.mnemonic} touches {at}{_inside(program, arguments, address)}, which program {other} "
                f"{_HOW[how]} in the same launch, and no atomic orders the two"
            )
        case _:
            kind = "an infinity" if how else "a NaN"
            sentence = f"{item.mnemonic} makes {kind} of ordinary numbers (element at scratchpad byte {at})"
    return SanitizerError(f"{program.location(index)}: {program.name}: program {place}: {sentence}")


def _blocks(program: Program, arguments: Sequence[int]) -> list[tuple[str, int, int]]:
    """Name, start and size of what pointer arguments point into."""
    found, find_block = [], session.find_block
    start, size = ctypes.c_uint64(), ctypes.c_uint64()
    for parameter, value in zip(program.parameters, arguments, strict=True):
        is_pointer = parameter.type.startswith("*")
        if is_pointer and find_block and find_block(value, ctypes.byref(start), ctypes.byref(size)):
            found.append((parameter.name, start.value, size.value))
    return found


def _inside(program: Program, arguments: Sequence[int], address: int) -> str:
    for name, start, size in _blocks(program, arguments):
        if start <= address < start + size:
            return f" (byte {address - start} of {size} of {name!r})"
    return ""


def _nearest(program: Program, arguments: Sequence[int], address: int) -> str:
    """Return how far an address is from the nearest tensor the kernel was given."""
    distances = [
        (start - address if address < start else address - (start + size), name, size, address < start)
        for name, start, size in _blocks(program, arguments)
    ]
    if not distances:
        return ""
    distance, name, size, before = min(distances)
    return f": {distance} bytes {'before the start' if before else 'after the end'} of {name!r} ({size} bytes)"
