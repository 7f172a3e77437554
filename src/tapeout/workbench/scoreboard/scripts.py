"""Third-party training scripts, unmodified: each by `tapeout run`, compared with the same script on the CPU.

Takes a folder of sources: what a user cloned or unpacked, one folder for each repository, named `owner+name`. Nothing
is fetched, neither sources nor data: a script that wants a data set finds a small one of made-up numbers laid beside
it, in a copy of its folder. The script decides what is compared: the figures it prints. Those of a script that draws
random numbers on the device, or with no seed, differ from run to run: they must be finite.
"""

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapeout.errors import TapeoutError
from tapeout.workbench.scoreboard import programs
from tapeout.workbench.scoreboard import script_data as data
from tapeout.workbench.scoreboard.verdicts import Verdict
from tapeout.workbench.script import RunTime

RELATIVE_TOLERANCE = 0.02
ABSOLUTE_TOLERANCE = 0.002
"""Tolerance of a printed figure. Some scripts compute in bfloat16, and training carries a difference on from step to
step."""

LOSS = r"(?i)(?:loss|error|ppl)\S*[ :=]+(-?\d+\.\d+(?:e-?\d+)?|nan|inf)"
ACCURACY = r"(\d+\.?\d*) %"


@dataclass(frozen=True)
class Script:
    """`path` and `arguments` as a user gives them in the folder `at` of the repository; `lay` puts data there.

    `on_chip` and `on_cpu`: arguments of the one run or the other. `needs`: packages beside Tapeout's own. `figures`: a
    regular expression whose group is a number to compare. `is_random`: whether two runs on one device differ, or the
    device draws random numbers.
    """

    name: str
    repository: str
    path: str
    arguments: tuple[str, ...] = ()
    at: str = "."
    lay: Callable[[Path], None] = data.nothing
    needs: tuple[str, ...] = ()
    figures: str = LOSS
    on_chip: tuple[str, ...] = ()
    on_cpu: tuple[str, ...] = ()
    is_random: bool = False

    @property
    def command(self) -> str:
        return " ".join(["tapeout run", self.path, *self.arguments, *self.on_chip])


@dataclass(frozen=True)
class Result:
    """Outcome of a script. `processor_s` is the host's, of the run on the chip; `chip_ps` is simulated."""

    script: Script
    version: str
    verdict: Verdict
    cause: str = ""
    processor_s: float = 0.0
    chip_ps: int = 0


EXAMPLES = "pytorch/examples"
VISION = ("torchvision",)
ACCEL = ("--accel",)


def _example(name: str, arguments: str, lay: Callable[[Path], None], **options: Any) -> Script:
    return Script(name.replace("_", " "), EXAMPLES, "main.py", tuple(arguments.split()), name, lay, **options)


def _language_model(model: str) -> Script:
    sizes = "--emsize 32 --nhid 32 --batch_size 4 --bptt 16 --epochs 1 --log-interval 4 --dropout 0 --lr 2"
    drops = model == "Transformer"  # which the option does not reach
    arguments = f"--model {model} {sizes}"
    example = _example(
        "word_language_model", arguments, data.words("data/wikitext-2"), on_chip=ACCEL, is_random=drops
    )  # fmt: skip
    return replace(example, name=f"word language model, {model}")


def _makemore(kind: str) -> Script:
    arguments = f"--type {kind} --max-steps 11 --n-embd 32 --num-workers 0 -b 16"
    return Script(
        f"makemore, {kind}",
        "karpathy/makemore",
        "makemore.py",
        tuple(arguments.split()),
        needs=("tensorboard",),
        on_chip=("--device", "cuda"),
        on_cpu=("--device", "cpu"),
    )


def _tutorial(name: str, lay: Callable[[Path], None] = data.mnist("../../data"), figures: str = ACCURACY) -> Script:  # noqa: B008
    title = name.partition("/")[2].replace("_", " ")
    at = f"tutorials/{name}"
    return Script(title, "yunjey/pytorch-tutorial", "main.py", (), at, lay, VISION, figures, is_random=True)


def _nano_gpt(name: str, lay: Callable[[Path], None], arguments: str, **options: Any) -> Script:
    sizes = "--n_layer=2 --n_head=2 --block_size=32 --batch_size=2 --max_iters=3 --eval_iters=1"
    on_cpu = ("--device=cpu", "--dtype=bfloat16", "--compile=False")
    given = (*arguments.split(), *sizes.split())
    return Script(name, "karpathy/nanoGPT", "train.py", given, lay=lay, on_cpu=on_cpu, **options)


_BY_CLASS = ("train/a", "train/b", "val/a", "val/b")

SCRIPTS = (
    _example(
        "mnist", "--epochs 1 --batch-size 16 --log-interval 1", data.mnist("../data"), needs=VISION, is_random=True
    ),
    _example(
        "mnist_rnn", "--epochs 1 --batch-size 16 --log-interval 1", data.mnist("../data"), needs=VISION, on_chip=ACCEL,
        is_random=True,
    ),
    _example(
        "mnist_forward_forward", "--epochs 3 --train_size 32 --test_size 32", data.mnist("data"), needs=VISION,
        is_random=True,
    ),
    _example("vae", "--epochs 1 --batch-size 16 --log-interval 1", data.mnist("../data"), needs=VISION, is_random=True),
    _example(
        "siamese_network", "--epochs 1 --batch-size 8 --test-batch-size 8 --dry-run", data.mnist("../data"),
        needs=VISION, is_random=True,
    ),
    _example(
        "dcgan", "--dataset fake --dry-run --batchSize 4 --ngf 8 --ndf 8 --workers 0 --manualSeed 1", data.nothing,
        needs=VISION, figures=r"Loss_[DG]: (-?\d+\.\d+)", on_chip=ACCEL, is_random=True,
    ),
    _example("gat", "--epochs 1 --val-every 1 --hidden-dim 8 --num-heads 2", data.citations, is_random=True),
    _example("gcn", "--epochs 1 --val-every 1", data.citations, is_random=True),
    *(_language_model(model) for model in ("LSTM", "GRU", "RNN_TANH", "Transformer")),
    _example(
        "super_resolution", "--upscale_factor 4 --batchSize 2 --testBatchSize 2 --nEpochs 1 --threads 0",
        data.pictures("dataset/BSDS300/images/train", "dataset/BSDS300/images/test"), needs=("torchvision", "six"),
        on_chip=ACCEL,
    ),
    _example("regression", "", data.nothing, is_random=True),
    _example(
        "imagenet", "-a squeezenet1_1 --epochs 1 -b 2 -j 0 -p 1 data",
        data.pictures(*(f"data/{folder}" for folder in _BY_CLASS)), needs=VISION, is_random=True,
    ),
    Script(
        "data-parallel tutorial", EXAMPLES, "single_gpu.py", ("2", "1"), "distributed/ddp-tutorial-series",
        figures=r"Epoch (\d)", is_random=True,
    ),
    *(_makemore(kind) for kind in ("transformer", "bow", "mlp", "rnn", "gru")),
    _nano_gpt("nanoGPT", data.tokens("data/openwebtext"), "--n_embd=64 --gradient_accumulation_steps=2"),
    _nano_gpt(
        "nanoGPT, characters, not compiled", data.tokens("data/shakespeare_char"),
        "config/train_shakespeare_char.py --n_embd=48 --dropout=0.0 --compile=False",
    ),
    Script(
        "minGPT, adder", "karpathy/minGPT", "projects/adder/adder.py",
        ("--trainer.max_iters=3", "--trainer.num_workers=0"), is_random=True,
    ),
    Script(
        "timm", "huggingface/pytorch-image-models", "train.py",
        ("--data-dir", "data", "--model", "test_vit", "--epochs", "1", "-b", "2", "-j", "1", "--num-classes", "2",
         "--log-interval", "1", "--no-prefetcher"),
        lay=data.pictures(*(f"data/{folder}" for folder in _BY_CLASS)), needs=("timm", "torchvision"),
        on_chip=("--device", "cuda"), on_cpu=("--device", "cpu"), is_random=True,
    ),
    _tutorial("01-basics/feedforward_neural_network"),
    _tutorial("01-basics/logistic_regression"),
    _tutorial("02-intermediate/convolutional_neural_network"),
    _tutorial("02-intermediate/recurrent_neural_network"),
    _tutorial("02-intermediate/bidirectional_recurrent_neural_network"),
    _tutorial("02-intermediate/language_model", data.words("data"), LOSS),
)  # fmt: skip


def run(sources: Path, only: str, time_limit_s: float) -> Iterator[Result]:
    """The results of the scripts whose name holds the regular expression, one after the other."""
    chosen = [script for script in SCRIPTS if re.search(only, script.name)]
    for script in chosen:
        if not _folder(sources, script).is_dir():
            raise TapeoutError(
                f"there is no folder {_folder(sources, script)}: put {script.repository} from GitHub there"
            )
    for script in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            yield _judge(script, sources, Path(scratch), time_limit_s)


def _folder(sources: Path, script: Script) -> Path:
    return sources / script.repository.replace("/", "+")


def _judge(script: Script, sources: Path, scratch: Path, time_limit_s: float) -> Result:
    version = _version(_folder(sources, script))
    alone = [script.path, *script.arguments, *script.on_cpu]
    on_host = _execute(alone, script, sources, scratch / "cpu", time_limit_s, is_on_chip=False)
    if on_host.returncode:
        return Result(script, version, Verdict.SKIPPED, f"the CPU does not run it: {programs.last_line(on_host)}")
    times = scratch / "times.json"
    before_s = programs.processor_s()
    command = ["-m", "tapeout", "run", "--result", str(times), script.path, "--", *script.arguments, *script.on_chip]
    on_chip = _execute(command, script, sources, scratch / "chip", time_limit_s, is_on_chip=True)
    spent_s = programs.processor_s() - before_s
    if on_chip.returncode or not times.exists():
        return Result(script, version, Verdict.BROKEN, programs.last_line(on_chip), spent_s)
    time = RunTime.from_json(times.read_text("utf-8"))
    cause = _difference(script, on_chip.stdout, on_host.stdout)
    operators = ", ".join(sorted(time.host_operators))
    verdict = Verdict.WRONG if cause else Verdict.FALLBACK if operators else Verdict.NATIVE
    return Result(script, version, verdict, cause or operators, spent_s, time.total_ps)


def _execute(
    arguments: list[str], script: Script, sources: Path, copy: Path, time_limit_s: float, *, is_on_chip: bool
) -> subprocess.CompletedProcess[str]:
    shutil.copytree(_folder(sources, script), copy, ignore=shutil.ignore_patterns(".git"))
    at = copy / script.at
    script.lay(at)
    variables = {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(copy)])}
    if not is_on_chip:
        variables["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    return programs.execute(arguments, at, time_limit_s, variables)


def _difference(script: Script, got: str, expected: str) -> str:
    """Return what is wrong about the figures a script printed; empty if nothing."""
    figures, references = ([float(text) for text in re.findall(script.figures, part)] for part in (got, expected))
    if not references or not figures:
        return f"it prints nothing like {script.figures}"
    if len(figures) != len(references) and not script.is_random:
        return f"{len(figures)} figures where the CPU prints {len(references)}"
    for place, (figure, reference) in enumerate(zip(figures, references, strict=not script.is_random)):
        if not math.isfinite(figure) and math.isfinite(reference):
            return f"figure {place + 1} is {figure}"
        is_close = math.isclose(figure, reference, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
        if not script.is_random and not is_close:
            return f"figure {place + 1} is {figure}, on the CPU {reference}"
    return ""


def _version(folder: Path) -> str:
    """The commit of a clone, or what a file VERSION in the folder says."""
    note = folder / "VERSION"
    if note.exists():
        return note.read_text("utf-8").strip()
    commit = subprocess.run(
        ["git", "-C", str(folder), "log", "-1", "--format=%h"], capture_output=True, text=True, check=False
    )
    return commit.stdout.strip() if commit.returncode == 0 else "unknown"
