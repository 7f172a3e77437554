"""What a definition says of its operands is what every machine does with them."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from tapeout.chip import load
from tapeout.isa import Program
from tapeout.isa import definitions as isa
from tapeout.isa.fields import REGISTRY, Queued, operands, read_registers, tiles, written_register
from tapeout.isa.manual import example
from tapeout.sim import evaluator, execution
from tapeout.sim.functional.translate import translate
from tapeout.sim.state import Memory, SequencerState
from tapeout.testing.random_programs import random_case

KINDS = tuple(REGISTRY.values())
BASE = 0x40_0000
CHIPS = [load("tiny"), load("inference")]
OWN_OF_THE_SEQUENCER = (isa.Halt, isa.Jump, isa.BranchZero, isa.BranchNonzero)

named = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.mnemonic)


@named
def test_every_rung_has_every_instruction(kind):
    item = example(kind)
    table = execution.EXECUTE if issubclass(kind, Queued) else execution.STEP
    assert kind in table or kind in OWN_OF_THE_SEQUENCER
    assert translate(Program("one", "tiny", (item, isa.Halt()), (), 1 << 16))
    for chip in CHIPS:
        assert kind.cost(item, chip).occupancy_cycles >= 0


def test_the_rtl_names_every_instruction():
    pytest.importorskip("amaranth")
    from tapeout import rtl

    files = Path(rtl.__file__).parent.glob("*.py")
    found = {
        node.attr for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)
    }
    assert {kind.__name__ for kind in KINDS if not issubclass(kind, isa.Sync)} <= found and "SYNC" in found


def test_the_rtl_fetches_the_registers_that_are_read():
    sequencer = pytest.importorskip("tapeout.rtl.sequencer")
    declared = {kind: set(read_registers(kind)) for kind in KINDS if not issubclass(kind, Queued)}
    assert {kind: set(names) for kind, names in sequencer.OPERANDS.items()} == {k: v for k, v in declared.items() if v}


@named
def test_the_meaning_names_fields_that_exist(kind):
    assert set(re.findall(r"\br\[(\w+)", kind.meaning)) - {"strides", "steps"} <= {field.name for field in kind.fields}


def bytes_of(item, registers, uses):
    """The bytes of the scratchpad that tiles cover."""
    covered = [np.zeros(0, np.int64)]
    for use, tile in uses:
        size = use.dtype.size_bytes
        places = np.full((1, 1, 1, 1), tile.base + registers[tile.register])
        for index, stride in zip(np.ogrid[tuple(map(slice, use.extents))], tile.strides, strict=True):
            places = places + index * stride * size
        covered.append((places[..., None] + np.arange(size)).reshape(-1))
    return set(np.concatenate(covered).tolist())


@pytest.mark.parametrize("seed", range(6))
def test_the_evaluator_touches_what_is_declared(seed):
    """Of tiles it reads no more than those declared as read (a compare alone reads `other`), and writes those declared
    as written, whole."""
    chip = CHIPS[seed % 2]
    case = random_case(seed, chip, instruction_count=30)
    seen = set()

    def watch(program_id, item, frame):
        if not isinstance(item, Queued):
            return
        seen.add(type(item))
        memory = Memory(frame.memory.base, frame.memory.data.copy())
        tried = execution.Frame(memory, frame.scratchpad.copy(), frame.registers, frame.place)
        execution.EXECUTE[type(item)](tried, item)
        read = {address for every in tried.read_addresses for address in every.tolist()}
        written = {address for every in tried.written_addresses for address in every.tolist()}
        uses = tiles(item)
        if not any(use.picked for use, _ in uses):
            assert read <= bytes_of(item, frame.registers, [entry for entry in uses if entry[0].reads])
        assert written == bytes_of(item, frame.registers, [entry for entry in uses if entry[0].writes])
        assert [use.operand for use in operands(item)] == [getattr(item, f.name) for f in item.operand_fields]

    areas = np.zeros(chip.core_count * case.program.workspace_bytes, np.uint8)
    memory = Memory(BASE, np.concatenate([case.image, areas]))
    evaluator.run(case.program, chip, case.grid, (BASE,), memory, workspace=BASE + len(case.image), watch=watch)
    assert len(seen) > 5


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in execution.STEP], ids=lambda kind: kind.mnemonic)
def test_scalar_instructions_touch_the_registers_declared(kind):
    """Nothing changes but the register that is written, and nothing but registers that are read decides its value."""
    item = example(kind)
    if kind is isa.Trap:
        return
    program = Program("one", "tiny", (item, isa.Halt()), (), 1 << 16)
    reads = {getattr(item, name) for name in read_registers(kind)}
    results = []
    for others in (7, 11):
        core = SequencerState(program, (2, 2, 2), tuple(range(64)), [(1, 1, 1)], 5)
        core.registers = [0] + [63 if number in reads else others for number in range(1, 256)]
        before = list(core.registers)
        scratchpad = np.arange(1 << 16, dtype=np.uint8)
        frame = execution.Frame(Memory(0, np.zeros(0, np.uint8)), scratchpad, core.registers, "here")
        execution.STEP[kind](core, frame, item)
        changed = [number for number, value in enumerate(core.registers) if value != before[number]]
        assert set(changed) <= {written_register(item)}
        results.append(core.registers[written_register(item)])
    assert results[0] == results[1]
