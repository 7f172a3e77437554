"""Launching: arguments, errors with the user's words in them, counters, threads, processes."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tapeout import runtime
from tapeout.chip import load
from tapeout.errors import LaunchError
from tapeout.isa import Parameter, Program, assemble
from tapeout.runtime import counters

CHIP = load("inference")

DOUBLE = """
    argument destination=r1 index=0
    argument destination=r2 index=1
    load_immediate destination=r3 value=4
    load_immediate destination=r4 value=256
again:
    next_program destination=r5
    branch_zero condition=r5 target=leave
    program_id destination=r6 axis=0
    scalar function=mul destination=r7 a=r6 b=r4 dtype=i64
    scalar function=add destination=r8 a=r1 b=r7 dtype=i64
    scalar function=add destination=r9 a=r2 b=r7 dtype=i64
    load dtype=f32 base=r8 strides=r0,r0,r0,r3 shape=1x1x1x64 tile=@0x0{0,0,0,1} signal_a=s1
    vector_sync wait_a=s1
    map2 function=add dtype=f32 shape=1x1x1x64 a=@0x0{0,0,0,1} b=@0x0{0,0,0,1} result=@0x100{0,0,0,1} signal_a=s2
    store dtype=f32 base=r9 strides=r0,r0,r0,r3 shape=1x1x1x64 tile=@0x100{0,0,0,1} wait_a=s2
    drain
    jump target=again
leave:
    halt
"""
ROWS = 37


def program(text=DOUBLE, name="double", **facts):
    items = assemble(text)
    facts = {
        "parameters": (Parameter("source", "*fp32"), Parameter("target", "*fp32")),
        "lines": (0,) * len(items),
        "locations": ("double.py:7",),
        "scratchpad_bytes": 512,
    } | facts
    return Program(name, CHIP.name, items, **facts)


@pytest.fixture
def arrays():
    source = np.arange(64 * ROWS, dtype=np.float32)
    return source, np.zeros_like(source)


@pytest.fixture
def arena(arrays):
    """An arena that holds both arrays."""
    addresses = [a.ctypes.data for a in arrays]
    base = min(addresses)
    runtime.session.set_arenas([(base, max(addresses) + arrays[0].nbytes - base)])
    yield base
    runtime.session.set_arenas(())


def pointers(arrays):
    return [a.ctypes.data for a in arrays]


def test_every_program_of_the_grid_runs(arrays):
    runtime.load(program(), CHIP).launch((ROWS, 1, 1), pointers(arrays))
    np.testing.assert_array_equal(arrays[1], 2 * arrays[0])


def test_an_empty_grid_runs_nothing(arrays):
    runtime.load(program(), CHIP).launch((0, 1, 1), pointers(arrays))
    assert not arrays[1].any()


def test_counters(arrays):
    kernel = runtime.load(program(), CHIP)
    counters.reset()
    kernel.launch((ROWS, 1, 1), pointers(arrays))
    seen = counters.snapshot()
    assert (seen.kernels_compiled, seen.kernels_launched) == (0, 1)
    assert seen.hbm_read_bytes == seen.hbm_written_bytes == arrays[0].nbytes
    engines = dict(seen.instructions_by_engine)
    assert engines.pop("sequencer") >= 8 * ROWS
    assert engines == {"load": ROWS, "store": ROWS, "matrix": 0, "vector": 2 * ROWS}
    kernel.launch((1, 1, 1), pointers(arrays))
    assert counters.snapshot().kernels_launched == 2
    assert seen.kernels_launched == 1


def test_a_host_pointer_is_refused(arena, arrays):
    foreign = arena - 4096
    with pytest.raises(LaunchError) as refused:
        runtime.load(program(), CHIP).launch((1, 1, 1), [arrays[0].ctypes.data, foreign])
    assert str(refused.value) == (
        f"double: argument 'target' is a foreign pointer ({foreign:#x}): it does not point into the chip's "
        "memory; move the tensor with .to('chip')"
    )


def test_a_misaligned_pointer_is_refused(arena, arrays):
    with pytest.raises(LaunchError) as refused:
        runtime.load(program(), CHIP).launch((1, 1, 1), [arrays[0].ctypes.data + 2, arrays[1].ctypes.data])
    assert str(refused.value) == (
        f"double: argument 'source' (*fp32) is misaligned: {arrays[0].ctypes.data + 2:#x} is not a multiple of 4"
    )


def test_an_access_outside_memory_is_reported(arena, arrays):
    kernel = runtime.load(program(), CHIP)
    end = max(pointers(arrays)) + arrays[0].nbytes
    with pytest.raises(LaunchError) as refused:
        kernel.launch((2, 1, 1), [end - 256, arrays[1].ctypes.data])
    assert str(refused.value).startswith("double.py:7: double: program (1, 0, 0): load at 0x")
    assert "is outside HBM; check the offsets and the mask of this access" in str(refused.value)
    kernel.launch((ROWS, 1, 1), pointers(arrays))
    np.testing.assert_array_equal(arrays[1], 2 * arrays[0])


def test_a_trap_names_its_program(arrays):
    text = DOUBLE.replace("    drain\n", "    branch_zero condition=r6 target=fine\n    trap code=0\nfine:\n")
    kernel = runtime.load(program(text, messages=("row must be 0",), order_free=False), CHIP)
    with pytest.raises(LaunchError, match=r"^double: program \(1, 0, 0\): row must be 0$"):
        kernel.launch((3, 1, 1), pointers(arrays))


def test_wrong_arguments_are_explained(arrays):
    kernel = runtime.load(program(), CHIP)
    with pytest.raises(LaunchError, match=r"^double: 1 arguments given, 2 needed: source, target$"):
        kernel.launch((1, 1, 1), [0])
    with pytest.raises(LaunchError, match="are not 64-bit words"):
        kernel.launch((1, 1, 1), [0, 1 << 64])


def test_launches_from_many_threads(arrays):
    kernel = runtime.load(program(), CHIP)
    targets = [np.zeros_like(arrays[0]) for _ in range(4)]

    def launch(target):
        for _ in range(50):
            kernel.launch((ROWS, 1, 1), pointers((arrays[0], target)))

    threads = [threading.Thread(target=launch, args=(t,)) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target in targets:
        np.testing.assert_array_equal(target, 2 * arrays[0])


def test_a_forked_process_launches(arrays):
    kernel = runtime.load(program(), CHIP)
    kernel.launch((ROWS, 1, 1), pointers(arrays))
    child = os.fork()
    if child == 0:
        target = np.zeros_like(arrays[0])
        kernel.launch((ROWS, 1, 1), pointers((arrays[0], target)))
        os._exit(0 if (target == 2 * arrays[0]).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("wanted", ["0", "many", "-1"])
def test_a_wrong_number_of_threads_is_refused(wanted):
    code = "from tapeout.runtime import native; native.thread_count()"
    environment = os.environ | {"TAPEOUT_THREADS": wanted}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    message = f"TAPEOUT_THREADS={wanted!r} is not a number of threads; 1 to 1024 is allowed"
    assert done.returncode and message in done.stderr
