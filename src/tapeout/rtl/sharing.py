"""Units that a core has many of are written to Verilog once and instantiated.

Amaranth would write a module for each; for the cells of an array that is hundreds of times the text.
"""

from typing import Protocol

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib.wiring import Component, Flow


class Shared(Protocol):
    """A component with a module name of its own, the same for equal parameters."""

    module_name: str


def ports_of(unit: Component) -> list[tuple[str, Flow, Value]]:
    """Its ports as Verilog has them: name, direction, value."""
    return [
        ("__".join(map(str, path)), member.flow, Value.cast(value))
        for path, member, value in unit.signature.flatten(unit)
    ]


def instantiate(m: Module, name: str, unit: Component) -> None:
    """Put an instance of the unit's module where a submodule would be."""
    unit._MustUse__silence = True  # Amaranth would warn that it is not elaborated here
    connections = {f"{'i' if flow is Flow.In else 'o'}_{port}": value for port, flow, value in ports_of(unit)}
    m.submodules[name] = Instance(
        unit.module_name,
        i_clk=ClockSignal(),
        i_rst=ResetSignal(),
        **connections,
    )
