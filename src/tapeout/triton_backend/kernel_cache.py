"""Triton's cache of kernels, with less to do for each process and each kernel; what it holds stays the same.

Before the first kernel of a process Triton reads and hashes its whole compiler, 460 MB, for what every key begins with.
Here that is worked out once for an installation and kept in our cache, under the names, sizes and times of Triton's
files. And each file of a kernel is written beside its place, not in a directory made and removed for it.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triton import knobs
from triton.compiler import compiler
from triton.runtime import cache

from tapeout.host import disk_cache, file_cache


class QuickFileCache(cache.FileCacheManager):
    """Triton's own, but for how a file gets to its place; there it appears whole or not at all, as with Triton's."""

    def put(self, data: Any, filename: str, binary: bool = True) -> str:
        path = self._make_path(filename)
        disk_cache.sweep(Path(self.cache_dir), "tmp.*")
        handle, unfinished = tempfile.mkstemp(dir=self.cache_dir, prefix="tmp.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data if isinstance(data, bytes) else str(data).encode())
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
        return path


def install() -> None:
    """Make Triton use it in this process, unless the user gave it another cache."""
    if knobs.cache.manager_class is None:
        knobs.cache.manager_class = QuickFileCache
    cache.triton_key = _remembered(cache.triton_key)
    compiler.get_cache_key = _of_its_file(compiler.get_cache_key)


def _of_its_file(key_of_content: Any) -> Any:
    """Programs carry their kernel's source lines, so the same text in another file is another kernel."""

    def get_cache_key(source: Any, backend: Any, options: Any, env_vars: Any) -> str:
        key: str = key_of_content(source, backend, options, env_vars=env_vars)
        function = getattr(source, "fn", None)
        if backend.target.backend != "chip" or function is None:
            return key
        return f"{key}-{function.fn.__code__.co_filename}"

    return get_cache_key


def _remembered(work_out: Any) -> Any:
    @functools.cache
    def triton_key() -> str:
        files = hashlib.sha256(repr(sorted(_files(Path(cache.__file__).parent.parent))).encode()).hexdigest()
        known = file_cache.entry("triton_key", files)
        if known is None:
            known = work_out().encode()
            file_cache.store("triton_key", files, known)
        return known.decode()

    return triton_key


def _files(package: Path) -> Iterator[tuple[str, int, int]]:
    """Every source file and library of a package: its path, size and time of change."""
    for folder, _, names in os.walk(package):
        for name in names:
            if name.endswith((".py", ".so")):
                path = os.path.join(folder, name)
                facts = os.stat(path)
                yield path, facts.st_size, facts.st_mtime_ns
