"""Runs a kernel three ways: on the chip's tensors, compared with PyTorch or NumPy; in the reference evaluator, which
must leave the same bytes as the functional simulator; there again under schedules that hurry or delay single queues."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import tapeout  # noqa: F401  (registers the device)
from tapeout import chip
from tapeout.isa import Program, Unit
from tapeout.sim import evaluator, schedules
from tapeout.triton_backend.driver import _converter

DEVICE = "chip"
EVALUATOR_BASE = 1 << 20
ADVERSARIES = (schedules.Late(Unit.LOAD), schedules.Early(Unit.LOAD), schedules.Late(Unit.VECTOR))


def run(kernel: Any, grid: tuple[int, ...], arguments: Mapping[str, Any], **constants: Any) -> dict[str, torch.Tensor]:
    """Launches a kernel on copies of its host tensors; gives what they hold afterwards."""
    return _launch(kernel, grid, arguments, constants)[0]


def run_three_ways(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Mapping[str, Any],
    adversaries: Sequence[schedules.Schedule] = ADVERSARIES,
    **constants: Any,
) -> dict[str, torch.Tensor]:
    """As `run`; then asserts that the evaluator leaves the same bytes, whatever the schedule."""
    results, program = _launch(kernel, grid, arguments, constants)
    for schedule in (None, *adversaries):
        evaluated = _evaluate(program, grid, arguments, schedule)
        for name, result in results.items():
            assert evaluated[name] == _bytes(result), f"{name} under {schedule or 'program order'}"
    return results


def _launch(
    kernel: Any, grid: tuple[int, ...], arguments: Mapping[str, Any], constants: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], Program]:
    on_chip = {n: a.to(DEVICE) if isinstance(a, torch.Tensor) else a for n, a in arguments.items()}
    compiled = kernel[grid](**on_chip, **constants)
    results = {n: a.cpu() for n, a in on_chip.items() if isinstance(a, torch.Tensor)}
    return results, Program.decode(compiled.asm["program"])


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _evaluate(
    program: Program, grid: tuple[int, ...], arguments: Mapping[str, Any], schedule: schedules.Schedule | None
) -> dict[str, bytes]:
    places, content = {}, bytearray(256)
    for name, argument in arguments.items():
        if isinstance(argument, torch.Tensor):
            places[name] = len(content)
            data = _bytes(argument)
            content += data + bytes(-len(data) % 256 + 256)
    words = [
        EVALUATOR_BASE + places[p.name] if p.name in places else _converter(p.type)(arguments[p.name])
        for p in program.parameters
    ]
    size = len(content) + program.workspace_bytes * chip.active().core_count
    memory = evaluator.Memory(EVALUATOR_BASE, np.frombuffer(content.ljust(size, b"\0"), np.uint8).copy())
    whole_grid = (*grid, 1, 1)[:3]
    workspace = EVALUATOR_BASE + len(content)
    evaluator.run(program, chip.active(), whole_grid, words, memory, workspace=workspace, schedule=schedule)
    return {name: memory.data[start : start + len(_bytes(arguments[name]))].tobytes() for name, start in places.items()}
