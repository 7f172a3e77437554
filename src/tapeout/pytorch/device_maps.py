"""`device_map="auto"` of accelerate and transformers: they ask each kind of device that they know for its memory."""

import functools
from typing import Any

import torch

from tapeout.pytorch.program import names_the_chip


def offer_memory() -> None:
    """Let accelerate see the chips' memory, in programs that are about the chip. Runs when accelerate is imported."""
    from accelerate.utils import modeling

    others = modeling.get_max_memory

    @functools.wraps(others)
    def get_max_memory(max_memory: Any = None) -> Any:
        found = others(max_memory)
        if max_memory is not None or any(isinstance(device, int) for device in found) or not names_the_chip():
            return found
        chip = torch.chip  # type: ignore[attr-defined]
        return {index: chip.mem_get_info(index)[0] for index in range(chip.device_count())} | found

    modeling.get_max_memory = get_max_memory
    modeling.logger.addFilter(lambda record: "available devices are []" not in record.getMessage())  # of CUDA's
