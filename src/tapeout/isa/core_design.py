"""Sizes of the microcoded core's hardware that no chip description states: what its RTL and its service times share."""

GROUPS = 4
"""Vectors that take turns in the lanes: one for each cycle from reading a step's operands to writing its result."""

DEPTH = 2 * GROUPS
"""Vectors a reader of tiles fetches ahead, and results that may wait for the writer."""

FLUSH_CYCLES = 5
"""Cycles from a matrix step's issue until its sum is in the cell."""
