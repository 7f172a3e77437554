"""The C++ shim: what it is built from, and its loading. tapeout.host.library builds and keeps it."""

import ctypes
from pathlib import Path

import torch

from tapeout.host import library as host
from tapeout.runtime import native, session

SOURCES = tuple(Path(__file__).with_name(name) for name in ("shim.cpp", "shim_parts.cpp"))
FLAGS = ("-O1", "-fvisibility=hidden", "-DUSE_KINETO", "-DFMT_HEADER_ONLY")
"""-O1: -O2 takes a fifth longer to compile and makes no call measurably quicker."""


def library() -> host.Library:
    """The shim for the installed torch."""
    root = Path(torch.__file__).parent
    include = root / "include"
    return host.Library(
        name="PyTorch device",
        sources=SOURCES,
        flags=(
            *FLAGS,
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            f"-I{include}",
            f"-I{include / 'kineto'}",
        ),
        link_flags=(f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"),
        generated={"autocast_lists.h": _autocast_lists(include / "ATen" / "autocast_mode.h")},
        facts=(torch.__version__,),
    )


def load() -> ctypes.CDLL:
    """The shim, loaded. What the first operator needs is built with it, so that it is built side by side."""
    wanted = [library(), native.source()]
    if session.clock is not None:
        from tapeout.sim.timing import fast

        wanted.append(fast.source())
    host.build(wanted)
    return host.load(wanted[0])


def _autocast_lists(header: Path) -> str:
    """torch's macros AT_FORALL_..., which list the operators that autocast casts for. The header itself takes a
    compiler longer than all the rest."""
    lines = iter(header.read_text("utf-8").splitlines())
    found = []
    for line in lines:
        if line.startswith("#define AT_FORALL_"):
            found.append(line)
            while found[-1].rstrip().endswith("\\"):
                found.append(next(lines))
    return "\n".join(found) + "\n"
