"""Whether a described chip is a card for training or for inference, with the reasons.

A training card multiplies exactly, has links, DRAM for gradients and optimiser states beside the weights, and arrays
that keep up with it. Bounds are assumed, between built cards: A100 has 153 bfloat16 operations a byte of memory and
H100 295, H20, which is sold for inference, 37; the smallest training cards have 32 GB.
"""

from dataclasses import dataclass

from tapeout.chip.description import Chip, GiB

LEAST_FLOP_PER_BYTE = 100
LEAST_BYTES = 32 * GiB


@dataclass(frozen=True)
class CardClass:
    """`reasons` speak against training; a training card has none."""

    name: str
    reasons: tuple[str, ...]


def card_class(chip: Chip) -> CardClass:
    """The class of a chip."""
    memory, reasons = chip.global_memory, []
    if chip.hbm is None:
        reasons.append("no DRAM")
    if memory.size_bytes < LEAST_BYTES:
        reasons.append(f"less memory than {LEAST_BYTES // GiB} GiB")
    balance = chip.peak_flops_per_s("bfloat16") / memory.bandwidth_bytes_per_s
    if chip.hbm is not None and balance < LEAST_FLOP_PER_BYTE:
        reasons.append(f"{balance:.0f} bfloat16 operations a byte of memory, below {LEAST_FLOP_PER_BYTE}")
    if not chip.links.link_count:
        reasons.append("no links to other chips")
    if chip.core.matrix.is_analogue:
        reasons.append("an analogue matrix engine")
    if chip.core.vector.left_out:
        reasons.append(f"functions left out: {', '.join(chip.core.vector.left_out)}")
    return CardClass("inference card" if reasons else "training card", tuple(reasons))
