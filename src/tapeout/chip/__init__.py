"""The chip description, the only thing every stage knows."""

from tapeout.chip.description import (
    Chip,
    Core,
    DmaEngine,
    GiB,
    Hbm,
    Host,
    KiB,
    LastLevelSram,
    Links,
    MatrixEngine,
    MiB,
    Scratchpad,
    VectorEngine,
)
from tapeout.chip.loading import CHIP_VARIABLE, activate, active, active_serial, load, named, refuse_activation_while
from tapeout.chip.reference import REFERENCE_CHIPS, inference, tiny, training

__all__ = [
    "CHIP_VARIABLE",
    "REFERENCE_CHIPS",
    "Chip",
    "Core",
    "DmaEngine",
    "GiB",
    "Hbm",
    "Host",
    "KiB",
    "LastLevelSram",
    "Links",
    "MatrixEngine",
    "MiB",
    "Scratchpad",
    "VectorEngine",
    "activate",
    "active",
    "active_serial",
    "inference",
    "load",
    "named",
    "refuse_activation_while",
    "tiny",
    "training",
]
