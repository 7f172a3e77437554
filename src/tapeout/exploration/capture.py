"""The operators that a script asks of a chip, with their shapes: run as a module, in a process of its own.

    python -m tapeout.exploration.capture CHIP.json OUTPUT.json SCRIPT ARGUMENTS

Products, attention, norms, softmax and embeddings keep their shapes; every other operator counts as an elementwise one
over its largest tensor. Kernels that no operator of PyTorch asked for (torch.compile's, the script's own) have no shape
here, and are refused.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tapeout.chip.loading import from_plain
from tapeout.errors import TapeoutError
from tapeout.runtime.clock import Kind, VirtualClock
from tapeout.workbench import script

Sizes = tuple[tuple[str, int], ...]
FLOATING = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


class _Calls(TorchDispatchMode):
    """Counts operators by kind, element type and sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str, Sizes]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        inputs = _tensors((args, kwargs))
        outputs = _tensors(result)
        views = any(each.alias_info is not None and not each.alias_info.is_write for each in function._schema.returns)
        if outputs and not views and any(each.device.type == "chip" for each in outputs):
            known = operator_of(function._opname, args, inputs, outputs)
            if known is not None:
                self.found[known] += 1
        return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def operator_of(
    name: str, args: Any, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
) -> tuple[str, str, Sizes] | None:
    """Kind, element type and sizes of one call; None for a call that moves nothing."""
    dtype = next((FLOATING[each.dtype] for each in (*inputs, *outputs) if each.dtype in FLOATING), "float32")
    if name in ("mm", "addmm", "bmm", "baddbmm"):
        left, right = [each for each in inputs if each.dim() >= 2][-2:]
        *batches, rows, inner = left.shape
        return "gemm", dtype, (("m", math.prod(batches) * rows), ("n", right.shape[-1]), ("k", inner))
    if name.startswith("_scaled_dot_product"):
        query, key = args[0], args[1]
        batch, heads, rows, size = query.shape
        shared: Sizes = (("num_heads", heads), ("num_key_value_heads", key.shape[1]), ("head_dim", size))
        if rows == 1:
            sizes: Sizes = (("batch_size", batch), ("step", max(key.shape[2] - 1, 1)), *shared)
            return "generation_attention", dtype, sizes
        return "context_attention", dtype, (("batch_size", batch), ("isl", rows), *shared)
    if name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
        columns, indices = args[0].shape[-1], args[1].numel()
        rows = outputs[0].numel() // columns
        return (
            "embedding",
            dtype,
            (("rows", max(rows, 1)), ("columns", columns), ("bag", max(indices // max(rows, 1), 1))),
        )
    if name in ("native_layer_norm", "_fused_rms_norm", "_softmax", "_log_softmax"):
        columns = outputs[0].shape[-1]
        kind = "softmax" if name.endswith("softmax") else "norm"
        return kind, dtype, (("rows", outputs[0].numel() // columns), ("columns", columns))
    elements = max((each.numel() for each in (*inputs, *outputs) if each.device.type == "chip"), default=0)
    if not elements or name in ("empty", "empty_strided", "set_", "resize_"):
        return None
    return "elementwise", dtype, (("elements", elements), ("inputs", min(max(len(inputs), 1), 3)))


def main(chip_file: str, output: str, name: str, arguments: list[str]) -> None:
    chip = from_plain(json.loads(Path(chip_file).read_text("utf-8")), chip_file)
    calls = _Calls()

    @contextmanager
    def watching(_: VirtualClock) -> Iterator[None]:
        with calls:
            yield

    recorded = script.record(script.Script(name, tuple(arguments), True, True), chip, watching)
    strangers = Counter(each.name for each in recorded.activities if each.kind is Kind.KERNEL and not each.operator)
    if strangers:
        kernel, count = strangers.most_common(1)[0]
        raise TapeoutError(
            f"{count:,} launches of {kernel!r} come from no operator of PyTorch, so their shape is not known; let the "
            "script run without torch.compile, or name a model as the workload"
        )
    rows = [
        {"op": op, "dtype": dtype, "sizes": dict(sizes), "count": count, "name": op}
        for (op, dtype, sizes), count in calls.found.items()
    ]
    from tapeout.pytorch import device

    told = {"operators": rows, "memory_bytes": device.max_memory_allocated()}
    Path(output).write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    except TapeoutError as error:
        sys.exit(str(error))
