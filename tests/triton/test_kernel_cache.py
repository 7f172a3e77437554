"""Triton's cache of kernels as the back end sets it up."""

import os

import pytest
import triton  # noqa: F401  (a kernel's cache lies in Triton's directory)
from triton.runtime import cache

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
