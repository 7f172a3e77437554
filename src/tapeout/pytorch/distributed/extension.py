"""The C++ half of the back end: what it is built from, and its loading. tapeout.host.library builds and keeps it."""

import functools
import importlib.machinery
import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType

import torch

from tapeout.host import library as host

NAME = "tccl"


def library() -> host.Library:
    """The extension module for the installed torch and this Python."""
    root = Path(torch.__file__).parent
    include = root / "include"
    return host.Library(
        name="torch.distributed back end",
        sources=(Path(__file__).with_name("backend.cpp"),),
        flags=(
            "-O1",
            "-fvisibility=hidden",
            "-DUSE_DISTRIBUTED",
            "-DUSE_C10D_GLOO",
            f"-DTORCH_EXTENSION_NAME={NAME}",
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            f"-I{include}",
            f"-I{include / 'torch/csrc/api/include'}",
            f"-I{sysconfig.get_path('include')}",
        ),
        link_flags=(f"-L{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", "-ltorch_python"),
        facts=(torch.__version__, sysconfig.get_python_version()),
    )


@functools.cache
def load() -> ModuleType:
    """Return the extension module; built first if it is not in the cache."""
    wanted = library()
    host.build([wanted])
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(host.place(wanted)))
    spec = importlib.util.spec_from_loader(NAME, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
