"""Libraries on top of PyTorch: a small program for each, on the chip and on the CPU, figures compared.

A program takes a device as its argument and prints lines of a name and a number, and lines `device TYPE` that say where
its tensors are. A library that takes any torch device is given `chip`, in a plain Python process; one with a fixed list
of devices runs by `tapeout run`, where the chip stands for CUDA. What ran silently on the CPU counts as broken.
"""

import importlib.metadata
import math
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tapeout.errors import TapeoutError
from tapeout.workbench.scoreboard import programs
from tapeout.workbench.scoreboard.verdicts import Verdict
from tapeout.workbench.script import RunTime

PROGRAMS = Path(__file__).parent / "library_programs"

RELATIVE_TOLERANCE = 0.01
ABSOLUTE_TOLERANCE = 0.0002
"""Tolerance of a printed figure: training carries a rounding on from step to step."""


@dataclass(frozen=True)
class Library:
    """`name`: as it is installed. `program`: a file in PROGRAMS. `needs`: further packages. `takes_devices`: whether it
    takes any torch device; if not, it runs as a CUDA program."""

    name: str
    program: str
    needs: tuple[str, ...] = ()
    takes_devices: bool = True

    @property
    def title(self) -> str:
        """First line of the program's docstring, without the library's name."""
        first = (PROGRAMS / f"{self.program}.py").read_text("utf-8").partition("\n")[0]
        return first.strip('"').partition(": ")[2].removesuffix(".")

    @property
    def way(self) -> str:
        return 'device="chip"' if self.takes_devices else "tapeout run"


LIBRARIES = (
    Library("accelerate", "accelerate_loop", takes_devices=False),
    Library("transformers", "transformers_trainer", ("accelerate",), takes_devices=False),
    Library("transformers", "transformers_pipeline"),
    Library("trl", "trl_sft", ("datasets",), takes_devices=False),
    Library("peft", "peft_lora"),
    Library("diffusers", "diffusers_pipeline"),
    Library("sentence-transformers", "sentence_transformers_encode"),
    Library("lightning", "lightning_fit"),
    Library("timm", "timm_model"),
    Library("torchvision", "torchvision_model"),
    Library("torchao", "torchao_quantize"),
    Library("torchmetrics", "torchmetrics_scores"),
    Library("torch-geometric", "torch_geometric_graph"),
    Library("einops", "einops_layers"),
    Library("datasets", "datasets_format"),
    Library("safetensors", "safetensors_files"),
    Library("torch", "torch_export"),
    Library("torch", "aot_inductor"),
    Library("onnx", "onnx_export", ("onnxscript", "onnxruntime")),
    Library("litserve", "litserve_server"),
)


@dataclass(frozen=True)
class Result:
    """Outcome of a library's program. `processor_s` is the host's, of the run on the chip; `chip_ps` is simulated."""

    library: Library
    version: str
    verdict: Verdict
    cause: str = ""
    processor_s: float = 0.0
    chip_ps: int = 0


def run(only: str, time_limit_s: float) -> Iterator[Result]:
    """The results of the libraries whose name or program holds the regular expression, one after the other."""
    chosen = [each for each in LIBRARIES if re.search(only, each.name) or re.search(only, each.program)]
    if not chosen:
        known = ", ".join(dict.fromkeys(each.name for each in LIBRARIES))
        raise TapeoutError(f"no library matches {only!r}; known are {known}")
    for library in chosen:
        yield judge(library, time_limit_s)


def judge(library: Library, time_limit_s: float) -> Result:
    for package in (library.name, *library.needs):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return Result(library, "-", Verdict.SKIPPED, f"{package} is not installed")
    version = importlib.metadata.version(library.name)
    program = str(PROGRAMS / f"{library.program}.py")
    on_host = _execute([program, "cpu"], time_limit_s, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    if on_host.returncode:
        return Result(library, version, Verdict.SKIPPED, f"the CPU does not run it: {programs.last_line(on_host)}")
    with tempfile.TemporaryDirectory() as scratch:
        times = Path(scratch) / "times.json"
        if library.takes_devices:
            command = ["-m", "tapeout.workbench.scoreboard.watched", str(times), program, "chip"]
        else:
            command = ["-m", "tapeout", "run", "--result", str(times), program, "--", "cuda"]
        before_s = programs.processor_s()
        on_chip = _execute(command, time_limit_s)
        spent_s = programs.processor_s() - before_s
        if on_chip.returncode or not times.exists():
            verdict = Verdict.REFUSED if "UnsupportedError" in programs.last_line(on_chip) else Verdict.BROKEN
            return Result(library, version, verdict, programs.last_line(on_chip), spent_s)
        time = RunTime.from_json(times.read_text("utf-8"))
    operators = ", ".join(sorted(time.host_operators))
    cause = difference(on_chip.stdout, on_host.stdout)
    verdict = Verdict.WRONG if cause else Verdict.FALLBACK if operators else Verdict.NATIVE
    devices = _devices(on_chip.stdout)
    if elsewhere := devices - {"chip", "cuda"}:
        verdict, cause = Verdict.BROKEN, f"silently on {', '.join(sorted(elsewhere))}"
    if not devices:
        verdict, cause = Verdict.BROKEN, "it does not say where its tensors are"
    return Result(library, version, verdict, cause or operators, spent_s, time.total_ps)


def _execute(arguments: Sequence[str], time_limit_s: float, **variables: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        return programs.execute(arguments, Path(folder), time_limit_s, {"HF_HUB_OFFLINE": "1", **variables})


def _devices(text: str) -> set[str]:
    return set(re.findall(r"^device (\w+)", text, re.MULTILINE))


def difference(got: str, expected: str) -> str:
    """Return what is wrong about the figures a program printed; empty if nothing."""
    figures, references = (
        re.findall(r"^([\w.-]+) (-?\d+\.?\d*(?:e[+-]?\d+)?|-?inf|nan)$", text, re.MULTILINE) for text in (got, expected)
    )
    if not references:
        return "it prints no figures"
    if [name for name, _ in figures] != [name for name, _ in references]:
        return f"it prints {len(figures)} figures where the CPU prints {len(references)}"
    for place, ((name, figure), (_, reference)) in enumerate(zip(figures, references, strict=True)):
        close = math.isclose(
            float(figure), float(reference), rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE
        ) or (figure == reference == "nan")
        if not close:
            return f"figure {place + 1}, {name}, is {figure}, on the CPU {reference}"
    return ""
