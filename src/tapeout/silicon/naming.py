"""A chip by whatever name the user gives: a description (reference chip or file) or a catalogued chip."""

import difflib
from pathlib import Path

from tapeout.accelerator import Accelerator, of_catalogued
from tapeout.chip import EXAMPLE_CHIPS, REFERENCE_CHIPS, catalog
from tapeout.chip import load as load_chip
from tapeout.chip.catalog import CataloguedChip
from tapeout.chip.description import Chip
from tapeout.silicon.described import DEFAULT_VOLUME, of_chip
from tapeout.silicon.technology import Technology


def resolve(name: str, own_catalog: Path | None = None) -> Chip | CataloguedChip:
    """The chip of that name. A name that ends like a chip file is one. Raises ChipError or CatalogError."""
    if name in (*REFERENCE_CHIPS, *EXAMPLE_CHIPS) or Path(name).suffix in (".py", ".toml", ".json"):
        return load_chip(name)
    try:
        return catalog.find(name, catalog.load(own_catalog))
    except catalog.CatalogError:
        if difflib.get_close_matches(name, REFERENCE_CHIPS, n=1):
            return load_chip(name)  # refuses it, and names the reference chip that was meant
        raise


def accelerator(
    chip: str | Chip | CataloguedChip,
    technology: Technology,
    *,
    volume: int = DEFAULT_VOLUME,
    own_catalog: Path | None = None,
) -> Accelerator:
    """A chip, or the chip of that name, as an `Accelerator`; a described one as made in that volume."""
    found = resolve(chip, own_catalog) if isinstance(chip, str) else chip
    return of_chip(found, technology, volume=volume) if isinstance(found, Chip) else of_catalogued(found)
