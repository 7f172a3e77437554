"""Each rung handles every instruction: a new one that a rung lacks is named here, not met by a user."""

import ast
import inspect

import pytest

from tapeout.isa import Unit
from tapeout.isa import definitions as isa
from tapeout.isa.fields import REGISTRY, Queued, read_registers
from tapeout.rtl import sequencer
from tapeout.sim.execution import EXECUTE, STEP
from tapeout.sim.functional import translate
from tapeout.sim.timing import fast

SEQUENCER = {kind for kind in REGISTRY.values() if kind.unit is Unit.SEQUENCER}
CONTROL = {isa.Halt, isa.Jump, isa.BranchZero, isa.BranchNonzero}
TILED = {kind for kind in REGISTRY.values() if issubclass(kind, Queued)} - set(isa.SYNC.values())


def named(nodes):
    """The definitions whose names stand in some nodes of a module as `isa.Name`."""
    names = {each.attr for node in nodes for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return {kind for kind in REGISTRY.values() if kind.__name__ in names}


def cases(module):
    tree = ast.walk(ast.parse(inspect.getsource(module)))
    return named(node.pattern for node in tree if isinstance(node, ast.match_case))


def switched(module):
    calls = (node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call))
    return named(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "case")


HANDLED = {
    "evaluator": (set(STEP) | set(EXECUTE) | CONTROL, SEQUENCER | TILED),
    "functional simulator": (cases(translate), SEQUENCER),
    "timing simulator in C++": (set(fast.KIND_OF), SEQUENCER),
    "sequencer in RTL": (switched(sequencer), SEQUENCER),
}


@pytest.mark.parametrize("rung", HANDLED)
def test_every_instruction_is_handled(rung):
    handled, wanted = HANDLED[rung]
    assert {kind.mnemonic for kind in wanted - handled} == set()


def test_the_sequencer_fetches_the_registers_that_definitions_name():
    fetched = {kind: set(names) for kind, names in sequencer.OPERANDS.items()}
    assert fetched == {kind: set(read_registers(kind)) for kind in SEQUENCER if read_registers(kind)}
