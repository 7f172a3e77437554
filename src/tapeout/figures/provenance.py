"""Degrees of trust in a figure: the one vocabulary of the project."""

import enum
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from tapeout.errors import TapeoutError

Value = TypeVar("Value")


class EstimateError(TapeoutError, ValueError):
    """A figure that contradicts itself or carries a unit nobody knows."""


class Provenance(enum.IntEnum):
    """Origin of a figure, strongest first. A figure computed from several has the weakest of theirs.

    `DEFINED` is a count, a conversion or a choice of a chip description: exact, and evidence of nothing.
    """

    DEFINED = 0
    MEASURED = 1
    PUBLISHED = 2
    MODELLED = 3
    ASSUMED = 4

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def named(cls, name: str) -> Self:
        try:
            return cls[name.upper()]
        except KeyError:
            known = ", ".join(str(member) for member in cls)
            raise EstimateError(f"unknown provenance {name!r}; choose from {known}") from None


@dataclass(frozen=True)
class Stated(Generic[Value]):
    """A fact that is no quantity (a word, yes or no), with its provenance and source."""

    value: Value
    provenance: Provenance
    source: str = ""
