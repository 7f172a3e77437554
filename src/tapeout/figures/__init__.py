"""Figures: quantities with unit, range, provenance and source. Everything the models say is made of them."""

from tapeout.figures.estimate import Estimate, Sensitivity, computed, given, number, total
from tapeout.figures.provenance import EstimateError, Provenance, Stated
from tapeout.figures.units import Unit

__all__ = [
    "Estimate",
    "EstimateError",
    "Provenance",
    "Sensitivity",
    "Stated",
    "Unit",
    "computed",
    "given",
    "number",
    "total",
]
