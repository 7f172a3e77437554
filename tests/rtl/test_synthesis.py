"""Synthesis counts what is there: gates of known circuits, instances however deep, memories as bits, mapped cells."""

import pytest

from tapeout import chip as chips
from tapeout.errors import TapeoutError
from tapeout.report import synthesis as report
from tapeout.report.page import to_text
from tapeout.rtl.synthesis import hierarchy, instance_counts, module_texts, of_verilog, synthesize
from tapeout.silicon import technology

TINY = chips.load("tiny")

VERILOG = """
module core(clk, a, b, x, y);
  input clk;
  wire clk;
  input [3:0] a;
  input [3:0] b;
  output [3:0] x;
  output [3:0] y;
  \\core.matrix_engine  part (
    .clk(clk),
    .a(a),
    .b(b),
    .x(x)
  );
  \\core.vector_engine  vector_engine (
    .a(a),
    .b(x),
    .x(y)
  );
endmodule

module \\core.vector_engine (a, b, x);
  input [3:0] a;
  input [3:0] b;
  output [3:0] x;
  wire [3:0] inner;
  nands outer (
    .a(a),
    .b(b),
    .x(inner)
  );
  assign x = ~(inner | a);
endmodule

module \\core.matrix_engine (clk, a, b, x);
  input clk;
  input [3:0] a;
  input [3:0] b;
  output [3:0] x;
  wire [3:0] inner;
  reg [3:0] held;
  reg [7:0] store [15:0];
  nands first (
    .a(a),
    .b(b),
    .x(inner)
  );
  always @(posedge clk) held <= inner;
  always @(posedge clk) store[a] <= {inner, b};
  assign x = held ^ store[b][3:0];
endmodule

module nands(a, b, x);
  input [3:0] a;
  input [3:0] b;
  output [3:0] x;
  assign x = ~(a & b);
endmodule
"""

ARC = """
    timing () {
      related_pin : "%s";
      timing_sense : negative_unate;
      cell_rise (flat) { values ("10.0, 10.0", "10.0, 10.0"); }
      cell_fall (flat) { values ("10.0, 10.0", "10.0, 10.0"); }
      rise_transition (flat) { values ("5.0, 5.0", "5.0, 5.0"); }
      fall_transition (flat) { values ("5.0, 5.0", "5.0, 5.0"); }
    }
"""
POSITIVE = ARC.replace("negative", "positive")
LIBERTY = f"""
library (few) {{
  time_unit : "1ps";
  capacitive_load_unit (1, ff);
  lu_table_template (flat) {{
    variable_1 : input_net_transition;
    variable_2 : total_output_net_capacitance;
    index_1 ("1.0, 100.0");
    index_2 ("1.0, 100.0");
  }}
  cell (NAND2) {{
    area : 2.0;
    pin (A) {{ direction : input; capacitance : 1.0; }}
    pin (B) {{ direction : input; capacitance : 1.0; }}
    pin (Y) {{ direction : output; function : "!(A&B)"; {ARC % "A"} {ARC % "B"} }}
  }}
  cell (NOR2) {{
    area : 2.5;
    pin (A) {{ direction : input; capacitance : 1.0; }}
    pin (B) {{ direction : input; capacitance : 1.0; }}
    pin (Y) {{ direction : output; function : "!(A|B)"; {ARC % "A"} {ARC % "B"} }}
  }}
  cell (AND2) {{
    area : 3.0;
    pin (A) {{ direction : input; capacitance : 1.0; }}
    pin (B) {{ direction : input; capacitance : 1.0; }}
    pin (Y) {{ direction : output; function : "A&B"; {POSITIVE % "A"} {POSITIVE % "B"} }}
  }}
  cell (BUF) {{
    area : 1.5;
    pin (A) {{ direction : input; capacitance : 1.0; }}
    pin (Y) {{ direction : output; function : "A"; {POSITIVE % "A"} }}
  }}
  cell (INV) {{
    area : 1.0;
    pin (A) {{ direction : input; capacitance : 1.0; }}
    pin (Y) {{ direction : output; function : "!A"; {ARC % "A"} }}
  }}
  cell (DFF) {{
    area : 8.0;
    ff (IQ, IQN) {{ clocked_on : "C"; next_state : "D"; }}
    pin (C) {{ direction : input; clock : true; }}
    pin (D) {{ direction : input; }}
    pin (Q) {{ direction : output; function : "IQ"; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def whole():
    return of_verilog(TINY, VERILOG)


@pytest.fixture(scope="module")
def found(whole):
    return {block.name: block for block in whole.blocks}


def test_instances_are_counted_however_deep():
    modules = hierarchy(module_texts(VERILOG))
    assert instance_counts(modules) == {"core": 1, "core.matrix_engine": 1, "core.vector_engine": 1, "nands": 2}


def test_gates_of_a_known_circuit(found):
    assert (found["nands"].nand2_equivalents, found["nands"].count, found["nands"].logic_levels) == (4, 2, 1)


def test_a_block_has_neither_what_is_inside_it_nor_its_memory_as_gates(found):
    part = found["core.matrix_engine"]
    assert (part.flip_flops, part.memory_bits) == (4, 128)
    assert found["core"].nand2_equivalents == 0


def test_the_whole_is_the_sum_of_its_blocks(whole, found):
    assert whole.nand2_equivalents("core") == sum(block.count * block.nand2_equivalents for block in found.values())
    assert whole.nand2_equivalents("core.vector_engine") == 4 + found["core.vector_engine"].nand2_equivalents


def test_cells_of_a_liberty_file(tmp_path):
    path = tmp_path / "few.lib"
    path.write_text(LIBERTY)
    blocks = {block.name: block for block in of_verilog(TINY, VERILOG, path).blocks}
    assert blocks["nands"].area == 4 * 2.0
    assert blocks["core.matrix_engine"].area >= 4 * 8.0 + 4 * 3 * 2.0


def test_paths_end_at_boxes():
    loop = "assign a = ~y;\n  assign b = ~x;\n"
    ports = "  input clk;\n  output [3:0] x;\n  output [3:0] y;\n  wire [3:0] a;\n  wire [3:0] b;\n  " + loop
    closed = VERILOG.replace("core(clk, a, b, x, y)", "core(clk, x, y)").replace(
        VERILOG[VERILOG.index("  input clk") : VERILOG.index("  \\core.matrix")], ports
    )
    core, *_ = of_verilog(TINY, closed).blocks
    assert (core.nand2_equivalents, core.logic_levels) == (4, 1)


def test_a_liberty_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TapeoutError, match=r"none\.lib: no such liberty file"):
        synthesize(TINY, liberty=tmp_path / "none.lib")


def test_the_page_compares_with_published_dies_and_its_figures_can_be_read(whole, tmp_path):
    known = technology.load()
    shown = to_text(report.page(whole, known))
    share = whole.nand2_equivalents("core.matrix_engine") * 4 / 91.2 / 64
    assert f"The ratio is {share / 356:.2f}" in " ".join(shown.split())
    path = tmp_path / "own.toml"
    path.write_text(report.technology_figures(whole, known))
    assert technology.load(path)["block_area.multiply_accumulate"].value == pytest.approx(share, abs=0.05)
