"""The arithmetic unit and the divider of a lane, simulated on arrays of operands."""

import ctypes
import functools

import numpy as np
from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa.microcode import ITERATIVE, OPERATION_BITS, WIDTH_BITS, WIDTHS, Operation, division_cycles
from tapeout.rtl.lane import ArithmeticUnit, Divider
from tapeout.rtl.verilator import library

TESTBENCH = """
#include "Model.h"
#include <cstdint>
double sc_time_stamp() { return 0; }
static Model model;
static void tick() { model.clk = 1; model.eval(); model.clk = 0; model.eval(); }
extern "C" void run(int operation, int width, int iterations, long count, const uint64_t* a, const uint64_t* b,
                    const uint64_t* c, uint64_t* result) {
  model.operation = operation;
  model.width = width;
  model.start = 0;
  model.rounds = 0;
  if (!iterations) {  // one after the other through the pipeline
    for (long i = 0; i < count + 2; ++i) {
      if (i < count) { model.a = a[i]; model.b = b[i]; model.c = c[i]; }
      model.clk = 0; model.eval();
      if (i >= 2) result[i - 2] = model.result;
      tick();
    }
    return;
  }
  for (long i = 0; i < count; ++i) {
    model.a = a[i]; model.b = b[i];
    model.start = 1; tick(); model.start = 0;
    for (int n = 0; n < iterations; ++n) tick();
    model.rounds = model.is_float; model.eval();
    result[i] = model.is_float ? model.result : model.quotient;
  }
}
"""


class Bench(Component):
    """Arithmetic unit and divider beside each other."""

    operation: In(OPERATION_BITS)
    width: In(WIDTH_BITS)
    a: In(64)
    b: In(64)
    c: In(64)
    start: In(1)
    rounds: In(1)
    is_float: Out(1)
    result: Out(64)
    quotient: Out(64)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = ArithmeticUnit(floats=True)
        m.submodules.divider = divider = Divider(floats=True)
        for part in (unit, divider):
            m.d.comb += [getattr(part, name).eq(getattr(self, name)) for name in ("operation", "width", "a", "b")]
        m.d.comb += [
            unit.c.eq(self.c),
            unit.divider_rounds.eq(self.rounds),
            unit.quotient_window.eq(divider.window),
            unit.quotient_top.eq(divider.top),
            unit.quotient_sign.eq(divider.sign),
            unit.quotient_is_nan.eq(divider.is_nan),
            unit.quotient_is_infinite.eq(divider.is_infinite),
            divider.start.eq(self.start),
            self.is_float.eq(self.operation >= Operation.FLOAT_DIVIDE.value),
            self.result.eq(unit.result),
            self.quotient.eq(divider.result),
        ]
        return m


@functools.cache
def bench():
    text = verilog.convert(Bench(), name="bench", emit_src=False)
    return library(lambda: text, text, "bench", TESTBENCH)


def computed(operation, width, a, b=None, c=None):
    """Results of one operation on arrays of unsigned bits."""
    operands = [np.ascontiguousarray(a if x is None else x, np.uint64) for x in (a, b, c)]
    result = np.zeros(len(a), np.uint64)
    iterations = division_cycles(operation, width) if operation in ITERATIVE else 0
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (*operands, result)]
    bench().run(operation.value, WIDTHS.index(width), iterations, ctypes.c_long(len(a)), *pointers)
    return result
