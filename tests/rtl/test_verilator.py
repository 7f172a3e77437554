"""What Verilator is told about a Verilog text."""

from tapeout.rtl.verilator import boundaries

VERILOG = """
module core(clk, in);
  cell cell_0 (
    .clk(clk)
  );
  cell cell_1 (
    .clk(clk)
  );
  queue only (
    .clk(clk)
  );
endmodule
module cell(clk, a,
b);
endmodule
module queue(clk, a);
endmodule
"""


def test_ports_of_modules_instantiated_several_times_are_kept_but_for_the_clock():
    assert boundaries(VERILOG) == (
        '`verilator_config\npublic_flat_rd -module "cell" -var "a"\npublic_flat_rd -module "cell" -var "b"\n'
    )
