"""Common parts of forms: the shape of one, and arithmetic on parts of a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tapeout.models.machine import Machine
from tapeout.models.tables import DTYPE_BYTES, Array, Table

MICRO = 1e-6
WEIGHT_ONLY = ("int8_wo", "int4_wo", "w4a16_mxfp4")
"""Types whose weights alone are narrow: products run in half precision."""


@dataclass(frozen=True)
class Parts:
    """Seconds of each row, and of what they are made. `roofline` is the least time the machine's peaks allow; `hints`
    are further figures that the trees may ask for."""

    seconds: Array
    roofline: Array
    bounds: Mapping[str, Array]
    hints: Mapping[str, Array] = field(default_factory=dict)

    def bound(self) -> NDArray[np.str_]:
        """The part that is largest, for each row."""
        names = np.array(list(self.bounds))
        largest: NDArray[np.str_] = names[np.argmax(np.stack(list(self.bounds.values())), axis=0)]
        return largest


Time = Callable[[Machine, Mapping[str, float], Table], Parts]


@dataclass(frozen=True)
class Form:
    """`parameters`: start, least and greatest value of each. `sizes`: fields whose doubling never saves time.
    `reach`: the residual moves the form by at most this, as a logarithm. What lies beyond fitted rows is larger in the
    field `far`, or has values of the fields `novel` that no fitted row has together."""

    name: str
    time: Time
    parameters: Mapping[str, tuple[float, float, float]]
    sizes: tuple[str, ...] = ()
    reach: float = 0.7
    far: str = ""
    novel: tuple[str, ...] = ()


def smooth_max(*parts: Array) -> Array:
    """The fourth-power mean of parts that overlap: near the larger, a little above where they are equal."""
    total = np.zeros(1)
    for part in parts:
        squared = part * part
        total = total + squared * squared
    return np.sqrt(np.sqrt(total))


def waves(tiles: Array, unit_count: float, softness: float) -> Array:
    """Rounds of `unit_count` tiles: whole rounds where a round waits for its slowest, less where tiles flow."""
    rounds = tiles / unit_count
    return np.where(rounds <= 1, 1.0, (1 - softness) * np.ceil(rounds) + softness * rounds)


def weight_bytes(dtype: str) -> float:
    return DTYPE_BYTES[dtype]


def activation_bytes(dtype: str) -> float:
    """Bytes of an operand that is not a weight: weight-only types keep half precision there."""
    if dtype == "w4a8_mxfp4_mxfp8":
        return 1.03125
    return 2.0 if dtype in WEIGHT_ONLY else DTYPE_BYTES[dtype]


def result_bytes(dtype: str) -> float:
    return max(2.0, DTYPE_BYTES[dtype]) if dtype != "float64" else 8.0
