"""The functional simulator: a Program as machine code of this host, bit-identical with the reference evaluator."""

from tapeout.sim.functional.machine import compile_object, load_object
from tapeout.sim.functional.translate import translate

__all__ = ["compile_object", "load_object", "translate"]
