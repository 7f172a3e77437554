"""Register allocation: values survive when they outnumber the registers."""

import numpy as np
import pytest

from tapeout import chip
from tapeout.codegen.emit import emit
from tapeout.codegen.machine import Instr, Loop, Register
from tapeout.errors import InternalError
from tapeout.isa import Function, Parameter, Program
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.sim import evaluator

TINY = chip.load("tiny")


def run(code, arguments):
    instructions, _, scratchpad_bytes = emit(code, scratchpad_bytes=64, register_count=64)
    parameters = tuple(Parameter(f"p{k}", "i64") for k in range(len(arguments)))
    program = Program("test", "tiny", tuple(instructions), parameters, scratchpad_bytes)
    memory = evaluator.Memory(4096, np.zeros(64, np.uint8))
    evaluator.run(program, TINY, (1, 1, 1), arguments, memory)
    return int(memory.data[:8].view(np.int64)[0]), program


def store(register, zero, address):
    fields = {
        "dtype": DType.I64,
        "base": address,
        "strides": (zero,) * 4,
        "low": (zero,) * 4,
        "high": (zero,) * 4,
    }
    return Instr(isa.Store, fields | {"shape": (1, 1, 1, 1), "tile": register})


def add(destination, a, b):
    return Instr(isa.Scalar, {"destination": destination, "a": a, "b": b, "function": Function.ADD, "dtype": DType.I64})


@pytest.mark.parametrize("count", [5, 44, 60, 100])
def test_more_values_than_registers(count):
    """All arguments are read first and summed last to first, weighted by a running sum, so each must survive."""
    zero, address, total = Register(0), Register(4096), Register()
    values = [Register() for _ in range(count)]
    code = [Instr(isa.Argument, {"destination": value, "index": index}) for index, value in enumerate(values)]
    code.append(add(total, zero, zero))
    for value in reversed(values):
        code += [add(total, total, total), add(total, total, value)]
    code.append(store(total, zero, address))
    arguments = [3 * k + 1 for k in range(count)]
    expected = 0
    for argument in reversed(arguments):
        expected = 2 * expected + argument
    expected = (expected + (1 << 63)) % (1 << 64) - (1 << 63)
    result, program = run(code, arguments)
    assert result == expected
    spills = sum(item.mnemonic == "scalar_store" for item in program.instructions)
    assert (spills > 0) == (count > 44)


@pytest.mark.parametrize("count", [10, 70])
def test_values_survive_a_loop(count):
    """Values read before a loop and used in every iteration keep their registers (or slots) until it ends."""
    zero, one, address = Register(0), Register(1), Register(4096)
    counter, total, condition = Register(), Register(), Register()
    values = [Register() for _ in range(count)]
    code = [Instr(isa.Argument, {"destination": value, "index": index}) for index, value in enumerate(values)]
    code += [add(counter, zero, zero), add(total, zero, zero)]
    head = [
        Instr(
            isa.Scalar,
            {
                "destination": condition,
                "a": counter,
                "b": Register(3),
                "function": Function.LESS,
                "dtype": DType.I64,
            },
        )
    ]
    body = [add(total, total, value) for value in values] + [add(counter, counter, one)]
    code += [Loop(head, condition, body), store(total, zero, address)]
    arguments = [k * k for k in range(count)]
    assert run(code, arguments)[0] == 3 * sum(arguments)


def test_an_instruction_to_be_has_only_the_fields_of_its_kind_and_in_their_types():
    with pytest.raises(InternalError, match=r"^halt has no field shape \(this is a bug in Tapeout"):
        Instr(isa.Halt, {"shape": (1, 1, 1, 1)})
    item = add(Register(), Register(), Register())
    assert item.get("dtype", DType) is DType.I64
    with pytest.raises(InternalError, match=r"^scalar: dtype is DType.I64, not a Register \(this"):
        item.get("dtype", Register)
