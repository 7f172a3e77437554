"""The sequencer: fetches words, executes scalar instructions, and issues the others with register contents.

One word is fetched a cycle. Registers lie in a memory with one reader, so each operand costs a cycle; scalar
arithmetic runs the same microprograms as the lanes, on an arithmetic unit without floats.
"""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa import definitions as isa
from tapeout.isa import microcode
from tapeout.isa.fields import QUEUES, REGISTER_COUNT, ROTATION_UNIT_BYTES, Instruction, register_places
from tapeout.isa.microcode import SOURCE_BITS, STEP_BITS, TARGET_BITS, WIDTHS, Operation, Place
from tapeout.numerics.dtypes import DType
from tapeout.rtl.arithmetic import wire
from tapeout.rtl.descriptor import QUEUED, VALUES, WORDS_LIMIT
from tapeout.rtl.lane import ArithmeticUnit, Divider, extended
from tapeout.rtl.queues import ISSUE, TAKER
from tapeout.rtl.scratchpad import Geometry, read_signature, write_signature

TARGET_WIDTH = 24


OPERANDS: dict[type[Instruction], tuple[str, ...]] = {
    isa.BranchNonzero: ("condition",),
    isa.BranchZero: ("condition",),
    isa.Scalar: ("a", "b"),
    isa.ScalarSelect: ("condition", "a", "b"),
    isa.ScalarConvert: ("a",),
    isa.Rotate: ("register",),
    isa.ScalarLoad: ("offset",),
    isa.ScalarStore: ("offset", "a"),
}
"""The registers an instruction of the sequencer reads, in the order they are fetched in: those its definition says."""


def field(kind: type[Instruction], name: str, bits: Value) -> Value:
    """A field of an instruction given its words."""
    for spec, offset in zip(kind.fields, kind.offsets, strict=True):
        if spec.name == name:
            return bits[offset : offset + spec.width]
    raise KeyError(f"{kind.mnemonic} has no field {name}")


def bytes_of_rotation(name: str, bits: Value) -> Value:
    return Cat(Const(0, (ROTATION_UNIT_BYTES - 1).bit_length()), field(isa.Rotate, name, bits))


def step_fields(word: Value) -> tuple[Value, Value, list[Value], list[Value], Value, Value, Value]:
    """operation, width, numbers and places of the sources, target, whether that is the result, whether it is last."""
    position = microcode.OPERATION_BITS + microcode.WIDTH_BITS
    numbers, places = [], []
    for _ in range(3):
        numbers.append(word[position : position + microcode.NUMBER_BITS])
        places.append(word[position + microcode.NUMBER_BITS : position + SOURCE_BITS])
        position += SOURCE_BITS
    return (
        word[0 : microcode.OPERATION_BITS],
        word[microcode.OPERATION_BITS : microcode.OPERATION_BITS + microcode.WIDTH_BITS],
        numbers,
        places,
        word[position : position + TARGET_BITS],
        word[position + TARGET_BITS],
        word[position + TARGET_BITS + 1],
    )


def iterations(operation: Value, width: Value, m: Module, name: str) -> Signal:
    """Cycles a division takes, less one."""
    count = Signal(6, name=name)
    is_float = operation.matches(Operation.FLOAT_DIVIDE.value, Operation.FLOAT_SQUARE_ROOT.value)
    with m.If(is_float):
        m.d.comb += count.eq(microcode.FLOAT_QUOTIENT_BITS - 1)
    with m.Else(), m.Switch(width):
        for code, bits in enumerate(WIDTHS):
            with m.Case(code):
                m.d.comb += count.eq(bits - 1)
    return count


class Sequencer(Component):
    """See the module. `launch` begins a program at word 0; `is_halted` ends it."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__(
            {
                "launch": In(1),
                "is_halted": Out(1),
                "is_trapped": Out(1),
                "trap_code": Out(32),
                "is_illegal": Out(1),
                "instruction_address": Out(TARGET_WIDTH),
                "instruction_word": In(64),
                "argument_index": Out(16),
                "argument_value": In(64),
                "workspace": In(64),
                "grid": In(96),
                "program_request": Out(1),
                "program_ready": In(1),
                "program_exists": In(1),
                "program_place": In(96),
                "queues_are_idle": In(1),
                "take": Out(TAKER),
                "issue": Out(ISSUE).array(len(QUEUES)),
                "read": Out(read_signature(geometry)),
                "write": Out(write_signature(geometry)),
                "word_number": Out(TARGET_WIDTH),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        pc, begin = Signal(TARGET_WIDTH), Signal(TARGET_WIDTH)
        words = [Signal(64, name=f"word_{n}", reset_less=True) for n in range(WORDS_LIMIT)]
        word = words[0]
        bits = Cat(words)
        opcode, length = word[0:8], word[8:12]
        holds = Signal()
        """The word that is there must be there again in the next cycle."""
        m.d.comb += [self.instruction_address.eq(Mux(holds, begin, pc)), self.word_number.eq(begin)]

        m.submodules.registers = registers = Memory(shape=unsigned(64), depth=REGISTER_COUNT, init=[])
        register_read, register_write = registers.read_port(), registers.write_port()
        written = Signal(REGISTER_COUNT)
        read_number, was_written = Signal(8), Signal()
        m.d.comb += [register_read.addr.eq(read_number), register_read.en.eq(1)]
        m.d.sync += was_written.eq(written.bit_select(read_number, 1) & read_number.any())
        register_value = wire(m, Mux(was_written, register_read.data, 0), "register_value")
        destination, result, writes = Signal(8), Signal(64), Signal()
        m.d.comb += [register_write.addr.eq(destination), register_write.data.eq(result), register_write.en.eq(writes)]
        with m.If(writes):
            m.d.sync += written.bit_select(destination, 1).eq(1)

        # Operands of the instruction at hand, read one after the other.
        operand = [Signal(64, name=f"operand_{n}", reset_less=True) for n in range(3)]
        operand_number = [Signal(8, name=f"operand_number_{n}") for n in range(3)]
        operand_count = Signal(2)
        with m.Switch(opcode):
            for kind, names in OPERANDS.items():
                with m.Case(kind.opcode):
                    m.d.comb += operand_count.eq(len(names))
                    m.d.comb += [operand_number[n].eq(field(kind, name, bits)) for n, name in enumerate(names)]

        # Where the registers of a queued instruction are named.
        table: list[int] = []
        first_of = {}
        for kind in QUEUED:
            places = register_places(kind)
            first_of[kind] = len(table)
            table += [place.bit | (place is places[-1]) << 10 for place in places]
        m.submodules.register_places = places_memory = Memory(shape=unsigned(11), depth=len(table), init=table)
        places_read = places_memory.read_port()
        entry = Signal(range(len(table) + 1))
        m.d.comb += [places_read.addr.eq(entry), places_read.en.eq(1)]
        first_entry, has_registers, queue = Signal.like(entry), Signal(), Signal(range(len(QUEUES)))
        is_queued = Signal()
        with m.Switch(self.instruction_word[0:8]):
            for kind in QUEUED:
                with m.Case(kind.opcode):
                    m.d.comb += [is_queued.eq(1), queue.eq(QUEUES.index(kind.unit))]
        held_queue = Signal.like(queue)
        with m.Switch(opcode):
            for kind in QUEUED:
                with m.Case(kind.opcode):
                    m.d.comb += [first_entry.eq(first_of[kind]), has_registers.eq(bool(register_places(kind)))]

        unit_result, unit_done, unit_start = self._arithmetic(m, bits, operand)
        counter, next_index = Signal(5), Signal(5)
        # Pipeline of register reads on the way to a queue: place read, register read, value written.
        place_valid, value_valid, last_value = Signal(), Signal(), Signal()
        value_position = Signal(6)
        with m.If(value_valid):
            for number, port in enumerate(self.issue):
                m.d.comb += [
                    port.write.eq(held_queue == number),
                    port.position.eq(value_position),
                    port.word.eq(register_value),
                ]
        scalar_address = wire(
            m, (field(isa.ScalarLoad, "address", bits) + operand[0])[0 : g.address_bits], "scalar_address"
        )
        store_address = wire(
            m, (field(isa.ScalarStore, "address", bits) + operand[0])[0 : g.address_bits], "store_address"
        )
        low = g.offset_bits
        program = Signal(96)
        wait_counter = Signal(range(g.latency_cycles + 1))

        def dtype_size(kind: type[Instruction]) -> tuple[Signal, Signal, Signal]:
            """Width code of an element, whether it is a float, whether it is a flag."""
            code = field(kind, "dtype", bits)
            width, is_float, is_flag = (
                Signal(n, name=f"{kind.mnemonic}_{x}") for n, x in ((3, "width"), (1, "is_float"), (1, "is_flag"))
            )
            with m.Switch(code):
                for dtype in DType:
                    with m.Case(dtype.code):
                        m.d.comb += [
                            width.eq(WIDTHS.index(dtype.bits)),
                            is_float.eq(dtype.is_float),
                            is_flag.eq(dtype is DType.I1),
                        ]
            return width, is_float, is_flag

        load_width, load_float, load_flag = dtype_size(isa.ScalarLoad)
        store_width, _, store_flag = dtype_size(isa.ScalarStore)
        convert_width, _, convert_flag = dtype_size(isa.ScalarConvert)
        row_words = [self.read.data[64 * n : 64 * (n + 1)] for n in range(g.row_bytes // 8)]
        loaded_word = Array(row_words)[scalar_address[3:low]] if len(row_words) > 1 else row_words[0]
        loaded = wire(m, loaded_word >> Cat(Const(0, 3), scalar_address[0:3]), "loaded")
        loaded_signed = extended(m, loaded, load_width, "loaded_signed")
        loaded_unsigned = Signal(64)
        stored = Signal(64)
        stored_bytes = Signal(8)
        with m.Switch(load_width):
            for code, width in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += loaded_unsigned.eq(loaded[0:width])
        with m.Switch(store_width):
            for code, width in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += [
                        stored.eq(operand[1][0:width]),
                        stored_bytes.eq((1 << max(width // 8, 1)) - 1),
                    ]
        converted_signed = extended(m, operand[0], Mux(convert_flag, 0, convert_width), "converted_signed")
        converted_unsigned = Signal(64)
        with m.Switch(Mux(convert_flag, 0, convert_width)):
            for code, width in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += converted_unsigned.eq(operand[0][0:width])
        rotated = wire(m, (operand[0] + bytes_of_rotation("step", bits))[0:64], "rotated")
        value_written = Mux(store_flag, operand[1][0], stored)
        m.d.comb += [
            self.write.row.eq(store_address[low:]),
            self.write.data.eq(
                Cat([(value_written << Cat(Const(0, 3), store_address[0:3]))[0:64]] * (g.row_bytes // 8))
            ),
            self.write.mask.eq(
                Cat(
                    (stored_bytes << store_address[0:3])[byte] & (store_address[3:low] == n)
                    for n in range(g.row_bytes // 8)
                    for byte in range(8)
                )
            ),
            self.read.row.eq(scalar_address[low:]),
            self.argument_index.eq(field(isa.Argument, "index", bits)),
        ]

        def finish() -> None:
            m.next = "FETCH"

        def case(kind: type[Instruction]) -> Any:
            return m.Case(kind.opcode)

        def give(name_kind: type[Instruction], value: Value, name: str = "destination") -> None:
            m.d.comb += [destination.eq(field(name_kind, name, bits)), result.eq(value), writes.eq(1)]

        with m.FSM(name="sequencer"):
            with m.State("STOPPED"), m.If(self.launch):
                m.d.sync += [pc.eq(0), written.eq(0), self.is_halted.eq(0), self.is_trapped.eq(0)]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += [begin.eq(pc), pc.eq(pc + 1)]
                m.next = "FIRST"
            with m.State("FIRST"):  # the first word is there; the next one's address is out
                full = Array(port.full for port in self.issue)[queue]
                with m.If(is_queued & full):
                    m.d.comb += holds.eq(1)
                with m.Else():
                    m.d.sync += [word.eq(self.instruction_word), counter.eq(1), held_queue.eq(queue)]
                    more = self.instruction_word[8:12] > 1
                    with m.If(is_queued):
                        for number, port in enumerate(self.issue):
                            m.d.comb += [
                                port.write.eq(queue == number),
                                port.position.eq(0),
                                port.word.eq(self.instruction_word),
                            ]
                    with m.If(more):
                        m.d.sync += pc.eq(pc + 1)
                        m.next = "WORDS"
                    with m.Else():
                        m.next = "DECODE"
            with m.State("WORDS"):
                with m.Switch(counter):
                    for n in range(1, WORDS_LIMIT):
                        with m.Case(n):
                            m.d.sync += words[n].eq(self.instruction_word)
                m.d.sync += counter.eq(counter + 1)
                is_queued_held = Signal()
                with m.Switch(opcode):
                    for kind in QUEUED:
                        with m.Case(kind.opcode):
                            m.d.comb += is_queued_held.eq(1)
                with m.If(is_queued_held):
                    for number, port in enumerate(self.issue):
                        m.d.comb += [
                            port.write.eq(held_queue == number),
                            port.position.eq(counter),
                            port.word.eq(self.instruction_word),
                        ]
                with m.If(counter + 1 == length):
                    m.next = "DECODE"
                with m.Else():
                    m.d.sync += pc.eq(pc + 1)
            with m.State("DECODE"):
                m.d.sync += [next_index.eq(0), counter.eq(0), entry.eq(first_entry + 1)]
                m.d.sync += [place_valid.eq(0), value_valid.eq(0), value_position.eq(VALUES)]
                m.d.comb += read_number.eq(operand_number[0])
                with m.Switch(opcode):
                    for kind in QUEUED:
                        with m.Case(kind.opcode):
                            m.d.comb += places_read.addr.eq(first_of[kind])
                            m.d.sync += place_valid.eq(1)
                            m.next = "REGISTERS" if register_places(kind) else "PUSH"
                    with m.Default():
                        with m.If(operand_count == 0):
                            m.next = "EXECUTE"
                        with m.Else():
                            m.next = "OPERANDS"
            with m.State("OPERANDS"):
                m.d.sync += next_index.eq(next_index + 1)
                with m.Switch(next_index):
                    for n in range(3):
                        with m.Case(n):
                            m.d.sync += operand[n].eq(register_value)
                            m.d.comb += read_number.eq(operand_number[min(n + 1, 2)])
                with m.If(next_index + 1 == operand_count):
                    m.next = "EXECUTE"
            with m.State("REGISTERS"):
                place = places_read.data
                m.d.comb += read_number.eq(bits.bit_select(place[0:10], 8))
                m.d.sync += [value_valid.eq(place_valid), last_value.eq(place[10] & place_valid)]
                with m.If(place_valid):
                    m.d.sync += entry.eq(entry + 1)
                with m.If(place_valid & place[10]):
                    m.d.sync += place_valid.eq(0)
                with m.If(value_valid):
                    m.d.sync += value_position.eq(value_position + 1)
                    with m.If(last_value):
                        m.d.sync += value_valid.eq(0)
                        m.next = "PUSH"
            with m.State("PUSH"):
                m.d.sync += value_valid.eq(0)
                for number, port in enumerate(self.issue):
                    m.d.comb += port.push.eq(held_queue == number)
                finish()
            with m.State("EXECUTE"), m.Switch(opcode):
                with case(isa.Halt), m.If(self.queues_are_idle):
                    m.d.sync += self.is_halted.eq(1)
                    m.next = "STOPPED"
                with case(isa.Drain), m.If(self.queues_are_idle):
                    finish()
                with case(isa.Jump):
                    m.d.sync += pc.eq(field(isa.Jump, "target", bits))
                    finish()
                with case(isa.BranchNonzero):
                    with m.If(operand[0].any()):
                        m.d.sync += pc.eq(field(isa.BranchNonzero, "target", bits))
                    finish()
                with case(isa.BranchZero):
                    with m.If(~operand[0].any()):
                        m.d.sync += pc.eq(field(isa.BranchZero, "target", bits))
                    finish()
                with case(isa.NextProgram):
                    m.d.comb += self.program_request.eq(1)
                    with m.If(self.program_ready):
                        give(isa.NextProgram, self.program_exists)
                        with m.If(self.program_exists):
                            m.d.sync += program.eq(self.program_place)
                        finish()
                with case(isa.ProgramId):
                    axes = Array(program[32 * n : 32 * (n + 1)] for n in range(3))
                    give(isa.ProgramId, axes[field(isa.ProgramId, "axis", bits)])
                    finish()
                with case(isa.GridSize):
                    axes = Array(self.grid[32 * n : 32 * (n + 1)] for n in range(3))
                    give(isa.GridSize, axes[field(isa.GridSize, "axis", bits)])
                    finish()
                with case(isa.Argument):  # its index went out with the word; the value comes a cycle later
                    m.d.sync += counter.eq(1)
                    with m.If(counter == 1):
                        give(isa.Argument, self.argument_value)
                        finish()
                with case(isa.Workspace):
                    give(isa.Workspace, self.workspace)
                    finish()
                with case(isa.LoadImmediate):
                    give(isa.LoadImmediate, field(isa.LoadImmediate, "value", bits))
                    finish()
                with case(isa.Scalar):
                    m.d.comb += unit_start.eq(1)
                    m.next = "ARITHMETIC"
                with case(isa.ScalarSelect):
                    give(isa.ScalarSelect, Mux(operand[0].any(), operand[1], operand[2]))
                    finish()
                with case(isa.ScalarConvert):
                    unsigned_flag = field(isa.ScalarConvert, "unsigned", bits)
                    give(isa.ScalarConvert, Mux(unsigned_flag, converted_unsigned, converted_signed))
                    finish()
                with case(isa.Rotate):
                    limit = bytes_of_rotation("limit", bits)
                    wraps = rotated.as_signed() >= Cat(limit, Const(0, 1)).as_signed()
                    give(isa.Rotate, Mux(wraps, 0, rotated), "register")
                    finish()
                with case(isa.ScalarLoad):
                    m.d.comb += self.read.valid.eq(1)
                    m.d.sync += wait_counter.eq(g.latency_cycles - 1)
                    with m.If(self.read.ready):
                        m.next = "LOADING"
                with case(isa.ScalarStore):
                    m.d.comb += self.write.valid.eq(1)
                    with m.If(self.write.ready):
                        finish()
                with case(isa.Wait):
                    m.d.comb += [self.take.valid.eq(1), self.take.a.eq(field(isa.Wait, "semaphore", bits))]
                    with m.If(self.take.ready):
                        finish()
                with case(isa.Trap):
                    m.d.sync += [
                        self.is_trapped.eq(1),
                        self.is_halted.eq(1),
                        self.trap_code.eq(field(isa.Trap, "code", bits)),
                    ]
                    m.next = "STOPPED"
                with m.Default():
                    m.d.sync += self.is_illegal.eq(1)
                    m.next = "STOPPED"
            with m.State("LOADING"):
                m.d.sync += wait_counter.eq(wait_counter - 1)
                with m.If(wait_counter == 0):
                    flagged = Mux(load_float, loaded_unsigned, loaded_signed)
                    give(isa.ScalarLoad, Mux(load_flag, loaded[0:8].any(), flagged))
                    finish()
            with m.State("ARITHMETIC"), m.If(unit_done):
                give(isa.Scalar, unit_result)
                finish()
        return m

    def _arithmetic(self, m: Module, bits: Value, operand: list[Signal]) -> tuple[Signal, Signal, Signal]:
        """Runs the microprogram of a scalar instruction, a step every three cycles."""
        rom = microcode.rom(microcode.scalar_programs())
        m.submodules.microcode = memory = Memory(shape=unsigned(STEP_BITS), depth=len(rom.words), init=rom.words)
        read = memory.read_port()
        m.submodules.unit = unit = ArithmeticUnit(floats=False)
        m.submodules.divider = divider = Divider(floats=False)
        start, done, result = Signal(name="unit_start"), Signal(name="unit_done"), Signal(64, name="unit_result")
        function, code = field(isa.Scalar, "function", bits), field(isa.Scalar, "dtype", bits)
        begin = Signal(range(len(rom.words)))
        width = Signal(3, name="dtype_width")
        with m.Switch(Cat(code, function)):
            for key, address in rom.start_of.items():
                with m.Case(key[2].code | key[1].code << 4):
                    m.d.comb += begin.eq(address)
        result_width = Signal(3)
        with m.Switch(code):
            for dtype in DType:
                with m.Case(dtype.code):
                    m.d.comb += width.eq(0 if dtype is DType.I1 else WIDTHS.index(dtype.bits))
        is_predicate = Signal()
        with m.Switch(function):
            for one in {key[1] for key in rom.start_of if key[1].is_predicate}:
                with m.Case(one.code):
                    m.d.comb += is_predicate.eq(1)
        m.d.comb += result_width.eq(width)
        step = Signal(range(len(rom.words)))
        m.d.comb += [read.en.eq(1), read.addr.eq(step)]
        operation, step_width, numbers, places, target, is_result, is_last = step_fields(read.data)
        temporaries = Array(Signal(64, name=f"temporary_{n}", reset_less=True) for n in range(rom.temporary_count))
        constants = Array(Const(value, 64) for value in rom.constants)
        cut = [Signal(64, name=f"cut_operand_{n}") for n in range(2)]
        with m.Switch(width):
            for number, size in enumerate(WIDTHS):
                with m.Case(number):
                    m.d.comb += [mine.eq(theirs[0:size]) for mine, theirs in zip(cut, operand, strict=False)]
        for name, number, place in zip("abc", numbers, places, strict=True):
            with m.Switch(place):
                with m.Case(Place.TEMPORARY.value):
                    m.d.comb += getattr(unit, name).eq(temporaries[number[0:4]])
                with m.Case(Place.OPERAND.value):
                    m.d.comb += getattr(unit, name).eq(Mux(number[0], cut[1], cut[0]))
                with m.Case(Place.CONSTANT.value):
                    m.d.comb += getattr(unit, name).eq(constants[number[0 : (len(rom.constants) - 1).bit_length()]])
        divides = operation >= Operation.DIVIDE.value
        turns, left = iterations(operation, step_width, m, "turns"), Signal(6)
        m.d.comb += [
            unit.operation.eq(operation),
            unit.width.eq(step_width),
            divider.operation.eq(operation),
            divider.width.eq(step_width),
            divider.a.eq(unit.a),
            divider.b.eq(unit.b),
        ]
        value = wire(m, Mux(divides, divider.result, unit.result), "step_result")

        def write() -> None:
            with m.If(~is_result):
                m.d.sync += temporaries[target[0:4]].eq(value)
            with m.If(is_last):
                m.d.comb += [
                    done.eq(1),
                    result.eq(
                        Mux(
                            is_predicate | (code == DType.I1.code),
                            value[0],
                            extended(m, value, width, "signed_result"),
                        )
                    ),
                ]
                m.next = "IDLE"
            with m.Else():
                m.d.sync += step.eq(step + 1)
                m.next = "READ"

        with m.FSM(name="arithmetic"):
            with m.State("IDLE"), m.If(start):
                m.d.sync += step.eq(begin)
                m.next = "READ"
            with m.State("READ"):
                m.next = "STAGE_1"
            with m.State("STAGE_1"):
                m.d.sync += left.eq(turns)
                with m.If(divides):
                    m.d.comb += divider.start.eq(1)
                    m.next = "DIVIDE"
                with m.Else():
                    m.next = "STAGE_2"
            with m.State("STAGE_2"):
                m.next = "STAGE_3"
            with m.State("STAGE_3"):
                write()
            with m.State("DIVIDE"):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "STAGE_3"
        return result, done, start
