"""Times of torch's own functions on the chip, against a physical limit.

    python -m benchmarks.torch_calls training timed
    python -m benchmarks.torch_calls training computed

print a line of JSON for each call; `code_quality` reads them for its table. `timed`: nothing is computed. `computed`:
the calls whose time depends on data.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from tapeout import chip as chips
from tapeout.runtime import clock, session


@dataclass(frozen=True)
class Call:
    """A call with its arguments' shapes; what it cannot avoid: `operations` of the matrix engine or `bytes_moved`.
    `least`: the share of the limit that is asked for, if one is."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    least: float | None
    operations: int = 0
    bytes_moved: int = 0


N, WEIGHTS, ROWS, COLUMNS = 4096, 8192, 16384, 4096
SEQUENCE, HEAD_SIZE, HEADS = 4096, 128, 32
FLASH = 4 * SEQUENCE**2 * HEAD_SIZE * HEADS
HEAD_SHAPE = (1, HEADS, SEQUENCE, HEAD_SIZE)


def _layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, (COLUMNS,), weight, bias)


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return functional.softmax(x, dim=-1)


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


CALLS = (
    Call("torch.mm 4096³ bf16", torch.mm, ((N, N), (N, N)), torch.bfloat16, 0.85, operations=2 * N**3),
    Call("F.linear 4096³ bf16", functional.linear, ((N, N), (N, N), (N,)), torch.bfloat16, 0.85, operations=2 * N**3),
    Call(
        "F.scaled_dot_product_attention bf16, 4096 x 128, 32 heads",
        functional.scaled_dot_product_attention, (HEAD_SHAPE,) * 3, torch.bfloat16, 0.60, operations=FLASH,
    ),
    Call("the same, causal", _causal, (HEAD_SHAPE,) * 3, torch.bfloat16, 0.60, operations=FLASH // 2),
    Call(
        "F.softmax 16384 x 4096 f32",
        _softmax, ((ROWS, COLUMNS),), torch.float32, 0.85, bytes_moved=8 * ROWS * COLUMNS,
    ),
    Call(
        "F.layer_norm 16384 x 4096 f32",
        _layer_norm, ((ROWS, COLUMNS), (COLUMNS,), (COLUMNS,)), torch.float32, 0.85, bytes_moved=8 * ROWS * COLUMNS,
    ),
    *(
        Call(
            f"F.linear 8192 x 8192 {str(dtype).removeprefix('torch.')}, {rows} row{'s' * (rows > 1)}",
            functional.linear, ((rows, WEIGHTS), (WEIGHTS, WEIGHTS)), dtype, 0.85,
            bytes_moved=WEIGHTS**2 * dtype.itemsize,
        )
        for rows, dtype in ((1, torch.bfloat16), (8, torch.bfloat16), (1, torch.float32))
    ),
    Call(
        "F.softmax 16384 x 4096 f32, compiled",
        torch.compile(_softmax), ((ROWS, COLUMNS),), torch.float32, None, bytes_moved=8 * ROWS * COLUMNS,
    ),
    Call(
        "F.layer_norm 16384 x 4096 f32, compiled",
        torch.compile(_layer_norm), ((ROWS, COLUMNS), (COLUMNS,), (COLUMNS,)), torch.float32, None,
        bytes_moved=8 * ROWS * COLUMNS,
    ),
)  # fmt: skip


TABLE_ROWS, ROW_ELEMENTS, BAGS, BAG_LENGTH = 1 << 23, 32, 1 << 15, 32
EMBEDDING_BAG = Call(
    "F.embedding_bag, 32 rows of 128 bytes each, int64 indices",
    functional.embedding_bag, (), torch.float32, 0.60,
    bytes_moved=BAGS * (BAG_LENGTH * (4 * ROW_ELEMENTS + 8) + 4 * ROW_ELEMENTS),
)  # fmt: skip
"""Computed as well as timed, because its time depends on its indices: rows anywhere in a table larger than the SRAM."""


def report(call: Call, chip: chips.Chip, *arguments: torch.Tensor, **options: Any) -> None:
    now = session.clock
    assert now is not None
    now.empty_sram()  # the limit is that of HBM
    before_ps = now.elapsed.busy_ps.get(clock.Kind.KERNEL, 0)
    with torch.no_grad():
        call.function(*arguments, **options)
    taken_ps = now.elapsed.busy_ps[clock.Kind.KERNEL] - before_ps
    limit_s = call.operations / chip.peak_flops_per_s("bfloat16")
    limit_s += call.bytes_moved / chip.hbm.bandwidth_bytes_per_s
    share = limit_s * clock.PICOSECONDS_PER_SECOND / taken_ps
    print(json.dumps({"name": call.name, "us": taken_ps / 1e6, "share": share, "least": call.least}), flush=True)
    elapsed = now.elapsed
    assert not (elapsed.host_operators or elapsed.untimed_kernels or elapsed.assumptions), elapsed


def main(chip_name: str, kind: str) -> None:
    chip = chips.activate(chip_name)
    if kind == "computed":
        table = torch.empty(TABLE_ROWS, ROW_ELEMENTS, device="chip")
        generator = torch.Generator().manual_seed(0)
        indices = torch.randint(0, TABLE_ROWS, (BAGS * BAG_LENGTH,), generator=generator).to("chip")
        offsets = (torch.arange(BAGS) * BAG_LENGTH).to("chip")
        session.turn_on()
        report(EMBEDDING_BAG, chip, indices, table, offsets, mode="sum")
        return
    session.turn_on(only=True)
    for call in CALLS:
        report(call, chip, *(torch.empty(shape, dtype=call.dtype, device="chip") for shape in call.shapes))


if __name__ == "__main__":
    main(*sys.argv[1:])
