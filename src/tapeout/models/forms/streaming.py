"""Operators that pass over memory once: norms, softmax, elementwise operators, embeddings.

time = launch + bytes / (bandwidth x share) x (1 + loss of short rows) + a start a round of rows
"""

from collections.abc import Mapping

import numpy as np

from tapeout.models.forms.base import MICRO, Form, Parts, smooth_max, weight_bytes
from tapeout.models.machine import Machine
from tapeout.models.tables import Table

PARAMETERS = {
    "bandwidth": (0.8, 0.1, 1.0),
    "launch": (2.4, 0.3, 200.0),  # µs
    "row": (256.0, 1.0, 4000.0),  # elements of a row that its start is worth
    "gather": (0.5, 0.05, 1.0),  # share of bandwidth of gathered rows, over streamed ones
    "lane": (0.03, 0.001, 1.0),  # vector operations per operation of the half-precision peak
}
_OPERATIONS = {"norm": 8.0, "softmax": 12.0, "elementwise": 4.0, "embedding": 1.0}


def time(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    size, name = weight_bytes(table.dtype), table.kind.name
    rate = machine.memory_byte_per_s * p["bandwidth"]
    if name == "elementwise":
        elements = table["elements"]
        moved = elements * (table["inputs"] + 1) * size
        loss = np.ones(len(table))
    elif name == "embedding":
        elements = table["rows"] * table["columns"] * table["bag"]
        moved = elements * size + table["rows"] * (table["columns"] * size + table["bag"] * 8)
        loss = 1 / p["gather"] * (1 + 16 / table["columns"])
    else:
        elements = table["rows"] * table["columns"]
        moved = 2 * elements * size
        loss = 1 + p["row"] / table["columns"]
    memory = moved / rate * loss
    arithmetic = elements * _OPERATIONS[name] / (machine.half_flop_per_s * p["lane"])
    launch = np.full(len(table), p["launch"] * MICRO)
    return Parts(
        seconds=launch + smooth_max(memory, arithmetic),
        roofline=moved / machine.memory_byte_per_s,
        bounds={"memory": memory, "vector": arithmetic, "launch": launch},
    )


FORM = Form("streaming", time, PARAMETERS, ("rows", "columns", "elements", "bag"))
