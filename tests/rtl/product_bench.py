"""A cell of the matrix engine, with what takes its operands apart, against products of floats or integers in C++."""

import ctypes
import functools

import numpy as np
from amaranth.back import verilog
from amaranth.hdl import Const, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from tapeout.numerics.dtypes import DType
from tapeout.rtl.matrix import FACTOR, Cell, taken_apart
from tapeout.rtl.verilator import library

TILES = 8
"""Sums that take turns, so that a product a cycle starts from zero."""

TESTBENCH = """
#include "Model.h"
#include <cmath>
#include <cstdint>
#include <cstring>
double sc_time_stamp() { return 0; }
static Model model;

static uint32_t product(int is_integer, double a, double b) {
  if (is_integer) return uint32_t(int32_t(a) * int32_t(b));
  float rounded = float(a * b + 0.0);  // exact before it is rounded: at most 24 bits
  uint32_t bits;
  memcpy(&bits, &rounded, 4);
  return std::isnan(rounded) ? 0x7fc00000u : bits;
}

// Products of all codes from `first` to `end` with `count` codes; how many are wrong, and the first that is.
extern "C" int64_t compare(int lhs_dtype, int rhs_dtype, int is_integer, const double* lhs, const double* rhs,
                           long first, long end, long count, int64_t* wrong) {
  model.lhs_dtype = lhs_dtype;
  model.rhs_dtype = rhs_dtype;
  model.clear = 0;
  model.load = 1;
  int64_t differing = 0, total = int64_t(end - first) * count;
  uint32_t expected[16];
  for (int64_t x = -16; x < total + 4; ++x) {
    int64_t at = x < 0 || x >= total ? 0 : x;
    long a = first + at / count, b = at % count;
    model.a = a; model.b = b;
    model.tile = x & 7; model.select = (x - 4) & 7; model.load_tile = (x - 5) & 7;
    expected[x & 15] = product(is_integer, lhs[a], rhs[b]);
    model.clk = 0; model.eval();
    if (x >= 4 && model.value != expected[(x - 4) & 15] && !differing++)
      *wrong = (first + (x - 4) / count) << 16 | (x - 4) % count;
    model.clk = 1; model.eval();
  }
  return differing;
}
"""


class Bench(Component):
    """A product into the sum of `tile`; four cycles later it can be read, then the sum becomes zero."""

    lhs_dtype: In(4)
    rhs_dtype: In(4)
    a: In(16)
    b: In(16)
    tile: In(3)
    select: In(3)
    load: In(1)
    load_tile: In(3)
    clear: In(1)
    value: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.cell = cell = Cell(TILES)
        for side, dtype, bits in (("lhs", self.lhs_dtype, self.a), ("rhs", self.rhs_dtype, self.b)):
            parts = taken_apart(m, dtype, bits, side)
            m.d.comb += [getattr(cell, f"{side}_{name}").eq(parts[name]) for name in FACTOR]
        tile = Signal(3)
        m.d.sync += tile.eq(self.tile)
        m.d.comb += [
            *(port.eq(Const(1, 1)) for port in (cell.valid, cell.is_first, cell.is_last)),
            cell.clear.eq(self.clear),
            cell.load.eq(self.load),
            cell.part.eq(3),
            cell.is_integer.eq(self.lhs_dtype == DType.I8.code),
            cell.tile.eq(tile),
            cell.load_tile.eq(self.load_tile),
            cell.select.eq(self.select),
            self.value.eq(cell.value),
        ]
        return m


@functools.cache
def bench():
    text = verilog.convert(Bench(), name="bench", emit_src=False)
    loaded = library(lambda: text, text, "bench", TESTBENCH)
    loaded.compare.restype = ctypes.c_int64
    return loaded


def wrong_products(lhs_dtype, rhs_dtype, values, first=0, end=None):
    """How many products of the codes from `first` to `end` with all codes are wrong, and the codes of the first.
    `values`: what every code of a type means, by type."""
    lhs, rhs = (np.ascontiguousarray(values[dtype], np.float64) for dtype in (lhs_dtype, rhs_dtype))
    example = ctypes.c_int64(-1)
    wrong = bench().compare(
        lhs_dtype.code,
        rhs_dtype.code,
        int(lhs_dtype is DType.I8),
        ctypes.c_void_p(lhs.ctypes.data),
        ctypes.c_void_p(rhs.ctypes.data),
        ctypes.c_long(first),
        ctypes.c_long(len(lhs) if end is None else end),
        ctypes.c_long(len(rhs)),
        ctypes.byref(example),
    )
    return wrong, (hex(example.value >> 16), hex(example.value & 0xFFFF)) if wrong else None
