"""A lane of the pipelined vector engine, an element a cycle, every part of a recipe held still."""

import ctypes
import functools

import numpy as np
from amaranth.back import verilog

from tapeout.isa.microcode import WIDTHS
from tapeout.rtl.pipelined.lane import LANE_CYCLES, PipelinedLane
from tapeout.rtl.verilator import library

TESTBENCH = f"""
#include "Model.h"
#include <cstdint>
double sc_time_stamp() {{ return 0; }}
static Model model;
extern "C" void run(const int* recipe, long count, const uint64_t* a, const uint64_t* b, const uint64_t* c,
                    uint64_t* result) {{
  model.operation = recipe[0]; model.width = recipe[1]; model.first = recipe[2]; model.second = recipe[3];
  model.extra = model.chosen_extra = recipe[4];
  model.widened = recipe[5]; model.narrowed = recipe[6]; model.rounding = recipe[7];
  for (long i = 0; i < count + {LANE_CYCLES}; ++i) {{
    if (i < count) {{ model.a = a[i]; model.b = b[i]; model.c = c[i]; }}
    model.clk = 0; model.eval();
    if (i >= {LANE_CYCLES}) result[i - {LANE_CYCLES}] = model.result;
    model.clk = 1; model.eval();
  }}
}}
"""


@functools.cache
def bench():
    text = verilog.convert(PipelinedLane(), name="bench", emit_src=False)
    return library(lambda: text, text, "bench", TESTBENCH)


def computed(recipe, *operands):
    """Results of a recipe on arrays of bits."""
    arrays = [np.ascontiguousarray(x, np.uint64) for x in (*operands, operands[0], operands[0])][:3]
    result = np.zeros(len(arrays[0]), np.uint64)
    parts = (
        recipe.operation.value,
        WIDTHS.index(recipe.width),
        recipe.first.value,
        recipe.second.value,
        recipe.extra.value,
        recipe.widened.code,
        recipe.narrowed.code,
        recipe.rounding.code,
    )
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (*arrays, result)]
    bench().run((ctypes.c_int * len(parts))(*parts), ctypes.c_long(len(result)), *pointers)
    return result
