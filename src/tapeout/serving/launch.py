"""Starting vLLM's server on a chip, as a process of its own, and ending it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tapeout.serving import step_times
from tapeout.serving.requirements import require_vllm
from tapeout.serving.vllm import VARIABLE

SMOLLM2 = "smollm2"
MIDDLEWARE = "tapeout.serving.vllm.usage.ChipUsage"
DEFAULT_CACHE_BYTES = 256 * 2**20
"""Of the chip's HBM, which here is the host's memory: vLLM's own default would take most of a data-centre chip's."""


def command(model: str, options: Sequence[str], *, name: str = "") -> list[str]:
    """`vllm serve` with what the user did not choose: float32, and a cache of 256 MiB."""
    given = {option.partition("=")[0].replace("_", "-") for option in options}
    words = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model, *options]
    if name and "--served-model-name" not in given:
        words += ["--served-model-name", name]
    if "--dtype" not in given:
        words += ["--dtype", "float32"]
    if not given & {"--kv-cache-memory-bytes", "--gpu-memory-utilization", "--num-gpu-blocks-override"}:
        words += ["--kv-cache-memory-bytes", str(DEFAULT_CACHE_BYTES)]
    return [*words, "--middleware", MIDDLEWARE]


def environment(chip: str, present: Mapping[str, str]) -> dict[str, str]:
    """For the server and the engine it starts: which chip, that it is wanted, and that time is kept."""
    return {
        "TAPEOUT_TIMING": "on",
        # A forked engine would inherit the parent's chip.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        **present,
        "TAPEOUT_CHIP": chip,
        VARIABLE: "1",
    }


def serve(model: str, chip: str, options: Sequence[str], *, name: str = "") -> int:
    """Run the server until it ends; the status is its own, 0 after SIGINT or SIGTERM. Raises VllmMissing."""
    require_vllm()
    with tempfile.TemporaryDirectory(prefix="tapeout-serve-") as folder:
        variables = {**environment(chip, os.environ), step_times.VARIABLE: str(Path(folder) / "steps.jsonl")}
        return until_it_ends(command(model, options, name=name), variables)


def until_it_ends(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command and pass SIGINT and SIGTERM on to it; its status, or 0 if it ended because of one."""
    # In a group of its own a terminal's Ctrl-C reaches it once, from here.
    server = subprocess.Popen(words, env=variables, process_group=0)
    asked_to_end = False

    def pass_on(number: int, frame: object) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        server.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = server.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if asked_to_end and status in (0, -signal.SIGINT, -signal.SIGTERM, 130, 143) else status
