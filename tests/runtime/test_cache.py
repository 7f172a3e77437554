"""Object code is kept on disk: found again, made again when damaged, safe among processes."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tapeout import runtime
from tapeout.chip import load
from tapeout.host import file_cache as cache
from tapeout.isa import Parameter, Program, assemble
from tapeout.runtime import counters

CHIP = load("inference")


def program(constant):
    """Writes a constant to where its argument points."""
    text = f"""
    argument destination=r1 index=0
    load_immediate destination=r2 value={constant}
    load_immediate destination=r3 value=4
    store dtype=i32 base=r1 strides=r0,r0,r0,r3 shape=1x1x1x16 tile=r2
    halt
    """
    return Program("constant", CHIP.name, assemble(text), (Parameter("target", "*i32"),))


def assert_right(kernel, constant):
    target = np.zeros(16, np.int32)
    kernel.launch((1, 1, 1), [target.ctypes.data])
    assert (target == constant).all()


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache that holds nothing but the built runtime, and counters at zero."""
    counters.reset()
    (tmp_path / "runtime").symlink_to(cache.directory() / "runtime")
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path))
    return tmp_path


def entries(folder):
    return [path for path in (folder / "objects").rglob("*") if path.is_file()]


def compiled_and_loaded():
    seen = counters.snapshot()
    return seen.kernels_compiled, seen.kernels_loaded


def test_a_kernel_is_compiled_once(fresh):
    assert_right(runtime.load(program(5), CHIP), 5)
    assert_right(runtime.load(program(5), CHIP), 5)
    assert compiled_and_loaded() == (1, 1)
    assert_right(runtime.load(program(6), CHIP), 6)
    assert_right(runtime.load(program(5), load("training")), 5)
    assert compiled_and_loaded() == (3, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        lambda data: b"other" + data[5:],
    ],
    ids=["empty", "cut in the header", "half written", "one byte short", "a flipped bit", "another format"],
)
def test_a_damaged_entry_is_made_again(fresh, damage):
    runtime.load(program(7), CHIP)
    (path,) = entries(fresh)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert_right(runtime.load(program(7), CHIP), 7)
    assert compiled_and_loaded() == (2, 0)
    assert path.read_bytes() == whole
    assert_right(runtime.load(program(7), CHIP), 7)
    assert compiled_and_loaded() == (2, 1)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    counters.reset()
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(blocked))
    assert_right(runtime.load(program(8), CHIP), 8)


def test_processes_share_a_cache(fresh):
    """Four processes that start together all compile the same kernels into one cache, and all are right."""
    folder = os.path.dirname(__file__)
    code = (
        f"import sys; sys.path.insert(0, {folder!r})\n"
        "from test_cache import CHIP, assert_right, program, runtime\n"
        "for constant in range(20): assert_right(runtime.load(program(constant), CHIP), constant)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert len(entries(fresh)) == 20  # no unfinished files are left
    assert all(cache.entry("objects", path.name) for path in entries(fresh))


def test_a_killed_writer_leaves_nothing_under_the_name(fresh):
    def killed(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.file("things", "key", ".so", killed)
    assert not list((fresh / "things").iterdir())

    def made(path):
        path.write_bytes(b"whole")

    assert cache.file("things", "key", ".so", made).read_bytes() == b"whole"
    path = cache.file("things", "key", ".so", killed)
    path.write_bytes(b"whol")
    assert cache.file("things", "key", ".so", made).read_bytes() == b"whole"
