"""Workloads as lists of operators with their shapes and counts: of a model's step, of a ranking model, of a script."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapeout.chip import Chip
from tapeout.exploration.space import Space, SpaceError
from tapeout.models import ranking, step
from tapeout.models.measure import OPERATORS
from tapeout.models.step import Operation
from tapeout.models.tables import ModelError, table

DTYPES = ("bfloat16", "float16", "float32")
"""Element types that the simulator is asked about."""
DECODE = {"batch": 32, "context": 4096}
CANDIDATES = 4096


@dataclass(frozen=True)
class Workload:
    """One piece of work of a chip. `memory_bytes` must fit its main memory."""

    name: str
    operations: tuple[Operation, ...]
    memory_bytes: float = 0.0


def chosen(space: Space, names: Sequence[str]) -> tuple[Workload, ...]:
    """The workloads of those names: of the space file, a model, a ranking model or a script; without names, all of the
    file. Raises SpaceError."""
    wanted = list(names) or list(space.workloads)
    if not wanted:
        raise SpaceError("no workload: name one with --workload, or in the space file's [workloads]")
    return tuple(_workload(name, space.workloads.get(name), space.base) for name in wanted)


def _workload(name: str, told: Mapping[str, Any] | None, base: Chip) -> Workload:
    if told is None:
        if name.endswith(".py"):
            told = {"script": name}
        elif name in ranking.SHAPES:
            told = {"ranking": name}
        elif name.casefold() in step.MODELS:
            told = {"model": name}
        else:
            known = ", ".join([*ranking.SHAPES, *step.MODELS])
            raise SpaceError(f"unknown workload {name!r}: neither of the space file, nor a script, nor one of {known}")
    kinds = {
        "model": {"batch", "context", "prefill", "dtype"},
        "ranking": {"candidates", "dtype"},
        "script": {"arguments"},
    }
    found = [kind for kind in kinds if kind in told]
    if len(found) != 1 or set(told) - {found[0]} - kinds[found[0]]:
        raise SpaceError(
            f"workload {name!r} is not one of a model (batch, context, prefill, dtype), a ranking (candidates, dtype) "
            "and a script (arguments)"
        )
    dtype = str(told.get("dtype", "bfloat16"))
    if dtype not in DTYPES:
        raise SpaceError(f"workload {name!r}: dtype={dtype!r} is not simulated here; {', '.join(DTYPES)} are")
    try:
        if "model" in told:
            asked = step.Step(
                model=step.model_called(str(told["model"])),
                batch=int(told.get("batch", DECODE["batch"])),
                context=int(told.get("context", DECODE["context"])),
                is_prefill=bool(told.get("prefill", False)),
                weight_dtype=dtype,
            )
            made = Workload(name, tuple(step.operations(asked)), asked.memory_bytes)
        elif "ranking" in told:
            shape = ranking.SHAPES.get(str(told["ranking"]))
            if shape is None:
                raise SpaceError(f"workload {name!r}: unknown ranking model; known: {', '.join(ranking.SHAPES)}")
            count = int(told.get("candidates", CANDIDATES))
            made = Workload(name, tuple(ranking.operations(shape, count, dtype)))
        else:
            made = _of_script(name, str(told["script"]), [str(each) for each in told.get("arguments", [])], base)
    except ModelError as error:
        raise SpaceError(f"workload {name!r}: {error}") from None
    for operation in made.operations:
        if operation.table.kind.name not in OPERATORS or operation.table.dtype not in DTYPES:
            raise SpaceError(
                f"workload {name!r} has {operation.table.kind.name} of {operation.table.dtype}, which the simulator is "
                f"not asked about here; it is about {', '.join(OPERATORS)}"
            )
    return made


def _of_script(name: str, script: str, arguments: Sequence[str], base: Chip) -> Workload:
    """The operators that a script asks of the base chip, in a process of its own, in timing alone."""
    if not Path(script).is_file():
        raise SpaceError(f"workload {name!r}: there is no script {script!r}")
    with tempfile.TemporaryDirectory() as folder:
        chip, output = Path(folder) / "chip.json", Path(folder) / "operators.json"
        chip.write_text(json.dumps(base.to_dict()), "utf-8")
        command = [sys.executable, "-m", "tapeout.exploration.capture", str(chip), str(output), script, *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode or not output.exists():
            last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            raise SpaceError(f"workload {name!r}: {script} failed: {last[0]}")
        rows = json.loads(output.read_text("utf-8"))
    operations = []
    for row in rows["operators"]:
        words = {"kv_cache_dtype": row["dtype"]} if row["op"].endswith("attention") else {}
        asked = table(row["op"], row["dtype"], **row["sizes"], **words)
        operations.append(Operation(row["name"], float(row["count"]), asked))
    if not operations:
        raise SpaceError(f"workload {name!r}: {script} asked nothing of the chip")
    return Workload(name, tuple(operations), float(rows["memory_bytes"]))
