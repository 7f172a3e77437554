"""Exact ends of many pipelines of one shape at once: the C++ of the planner (`events.cpp`).

Takes the order of a schedule and what passes take in each pipeline; gives when each device ends. The same times as
`training.schedules.times`, without the timeline.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapeout.errors import InternalError
from tapeout.host.library import Library, for_this_host, load
from tapeout.training import schedules
from tapeout.training.schedules import Order

Array = NDArray[np.float64]


def source() -> Library:
    """Return what the library is built from, for this host."""
    return for_this_host("planner", (Path(__file__).with_name("events.cpp"),), "")


@functools.cache
def _ends() -> Any:
    function = load(source()).tapeout_pipeline_ends
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    function.restype = word
    function.argtypes = [pointer] * 2 + [word] * 3 + [pointer] * 4 + [word, pointer]
    return function


def order(schedule: str, stages: int, micro_batches: int) -> Order:
    """The order of a schedule without virtual stages; 1F1B, which is asked for most, without a loop over its passes."""
    if schedule != "1f1b" and stages > 1:
        return schedules.order(schedule, stages, micro_batches, 1)
    rows = np.empty((stages, 2 * micro_batches, 3), np.int64)
    micros = np.arange(micro_batches)
    for device in range(stages):
        ahead = min(stages - device - 1, micro_batches)
        both = micro_batches - ahead  # forward and backward passes that take turns
        mine = rows[device]
        mine[:, 1] = device
        mine[:ahead, 0], mine[:ahead, 2] = schedules.FORWARD, micros[:ahead]
        turns = mine[ahead : ahead + 2 * both]
        turns[0::2, 0], turns[0::2, 2] = schedules.FORWARD, micros[ahead:]
        turns[1::2, 0], turns[1::2, 2] = schedules.WHOLE_BACKWARD, micros[:both]
        mine[ahead + 2 * both :, 0], mine[ahead + 2 * both :, 2] = schedules.WHOLE_BACKWARD, micros[both:]
    starts = np.arange(stages + 1) * 2 * micro_batches
    return Order(rows.reshape(-1, 3), starts, stages, micro_batches)


def ends(order: Order, forward: Array, backward: Array, weight: Array, transfer: Array) -> Array:
    """When devices end, pipeline x device. Passes: pipeline x chunk; hops: pipeline x chunk - 1."""
    arrays = [np.ascontiguousarray(each, np.float64) for each in (forward, backward, weight, transfer)]
    rows, starts = np.ascontiguousarray(order.rows), np.ascontiguousarray(order.starts)
    count, devices = len(arrays[0]), len(starts) - 1
    found = np.empty((count, devices))
    status = _ends()(
        rows.ctypes.data,
        starts.ctypes.data,
        devices,
        order.chunk_count,
        order.micro_batches,
        *(each.ctypes.data for each in arrays),
        count,
        found.ctypes.data,
    )
    if status:
        raise InternalError("a schedule waits for itself")
    return found
