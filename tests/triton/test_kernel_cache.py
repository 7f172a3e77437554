"""Triton's cache of kernels as the back end sets it up."""

import importlib.util
import os
import re

import pytest
import torch
import triton  # noqa: F401  (a kernel's cache lies in Triton's directory)
from triton.runtime import cache

from tapeout.host import file_cache
from tapeout.triton_backend import kernel_cache


def test_the_key_of_triton_is_worked_out_once_for_an_installation(monkeypatch, tmp_path):
    package = tmp_path / "triton"
    package.joinpath("runtime").mkdir(parents=True)
    source = package / "runtime" / "cache.py"
    source.write_text("1")
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(cache, "__file__", str(source))
    asked = []

    def in_a_process():
        return kernel_cache._remembered(lambda: asked.append(1) or f"key {len(asked)}")()

    assert [in_a_process(), in_a_process()] == ["key 1", "key 1"]
    os.utime(source, ns=(1, 1))
    assert in_a_process() == "key 2"
    source.write_text("12")
    os.utime(source, ns=(1, 1))
    assert in_a_process() == "key 3"


def test_a_file_of_a_kernel_appears_whole_or_not_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_cache.knobs.cache, "dir", str(tmp_path))
    kept = kernel_cache.QuickFileCache("key")
    path = kept.put("text", "kernel.ttir")
    assert kept.get_file("kernel.ttir") == path
    kept.put(b"other", "kernel.ttir")
    with pytest.raises(UnicodeEncodeError):
        kept.put("\ud800", "kernel.ttir")
    assert os.listdir(tmp_path / "key") == ["kernel.ttir"]
    with open(path, "rb") as file:
        assert file.read() == b"other"


SAME_KERNEL = """import triton
import triton.language as tl


@triton.jit
def refuses(x):
    tl.device_assert(tl.load(x) > 0, "must be positive")
"""


def test_the_same_kernel_in_another_file_names_that_file(tmp_path):
    for name in ("first_of_two", "second_of_two"):
        path = tmp_path / f"{name}.py"
        path.write_text(SAME_KERNEL)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(RuntimeError, match=re.escape(f"{path}:7")):
            module.refuses[(1,)](torch.zeros(1, device="chip"), debug=True)
            torch.chip.synchronize()


def test_what_a_killed_process_left_half_made_is_removed_after_a_day(monkeypatch, tmp_path):
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "objects" / "ab"
    folder.mkdir(parents=True)
    for name in ("old.part", "new.part"):
        folder.joinpath(name).touch()
    os.utime(folder / "old.part", (1, 1))
    file_cache.store("objects", "abc", b"1")
    assert sorted(os.listdir(folder)) == ["abc", "new.part"]
