"""The C++ of the operator models: the choice of tiles of a product (`forms/gemm.cpp`) and the trees (`trees.cpp`)."""

import ctypes
import functools
from pathlib import Path

from tapeout.host.library import Library, for_this_host, load

SOURCES = (Path(__file__).with_name("trees.cpp"), Path(__file__).with_name("forms") / "gemm.cpp")


def source() -> Library:
    """Return what they are built from, for this host."""
    return for_this_host("operator models", SOURCES, "")


@functools.cache
def library() -> ctypes.CDLL:
    loaded = load(source())
    pointer, word, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    for name, arguments in (
        ("tapeout_grow_tree", [pointer, word, pointer, pointer] + [word] * 4 + [real] + [pointer] * 3),
        ("tapeout_sum_trees", [pointer, word, word, pointer, word, word] + [pointer] * 4),
        ("tapeout_gemm", [pointer] * 3 + [word, pointer, word] + [real] * 9 + [pointer] * 3),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = None, arguments
    return loaded
