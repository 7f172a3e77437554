"""The arithmetic of a chip's analogue matrix engine."""

from tapeout.chip import Chip
from tapeout.numerics.analogue import AnalogueProduct


def of_chip(chip: Chip) -> AnalogueProduct | None:
    """What its matrix engine computes if it is analogue; None for one that is exact."""
    matrix = chip.core.matrix
    if not matrix.is_analogue:
        return None
    return AnalogueProduct.of(
        operand_bits=matrix.operand_bits,
        accumulate_bits=matrix.accumulate_bits,
        sum_depth=matrix.sum_depth,
        sum_range=matrix.sum_range,
        noise_steps=matrix.noise_steps,
        noise_seed=matrix.noise_seed,
    )
