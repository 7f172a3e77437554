"""The sequencer of the pipelined core: an instruction a cycle.

Two stages. The first has an instruction's words (of a long one after some cycles) and names its registers; the second
has the registers' contents, executes, and writes. Registers are kept once for each place an instruction may name one
in, so that all are read at once. An instruction of a queue is issued in the second stage, whole. A taken branch costs
three cycles.
"""

from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa import definitions as isa
from tapeout.isa.fields import QUEUES, REGISTER_COUNT, Instruction, register_places
from tapeout.isa.microcode import WIDTHS
from tapeout.numerics.dtypes import DType
from tapeout.rtl.arithmetic import wire
from tapeout.rtl.descriptor import QUEUED, WORDS_LIMIT
from tapeout.rtl.lane import extended
from tapeout.rtl.pipelined.queues import issue_signature
from tapeout.rtl.pipelined.scalar import ScalarUnit
from tapeout.rtl.queues import TAKER
from tapeout.rtl.scratchpad import Geometry, read_signature, write_signature
from tapeout.rtl.sequencer import OPERANDS, TARGET_WIDTH, bytes_of_rotation, field

PORTS = max(len(register_places(kind)) for kind in QUEUED)
"""Registers read at once."""


def sequencer_ports(geometry: Geometry, fetch_words: int) -> dict[str, Any]:
    """Return what the sequencer is connected to, queues left out."""
    return {
        "launch": In(1),
        "is_halted": Out(1),
        "is_trapped": Out(1),
        "trap_code": Out(32),
        "is_illegal": Out(1),
        "instruction_address": Out(TARGET_WIDTH),
        "instruction_word": In(64 * fetch_words),
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
        "read": Out(read_signature(geometry)),
        "write": Out(write_signature(geometry)),
        "word_number": Out(TARGET_WIDTH),
    }


class Fetch:
    """The first stage: words of the next instruction, put together.

    `words` are all of it while `is_whole`; `moves` takes it over. `address` is that of the words wanted in the next
    cycle, `begin` that of the instruction's first."""

    def __init__(self, m: Module, arriving: Value, fetch_words: int) -> None:
        self.moves, self.redirects, self.target = Signal(name="moves"), Signal(name="redirects"), Signal(TARGET_WIDTH)
        self.stops = Signal(name="stops_fetching")
        place, begin = Signal(TARGET_WIDTH, name="fetch_place"), Signal(TARGET_WIDTH, name="fetch_begin")
        is_there, runs = Signal(name="words_are_there"), Signal(name="fetch_runs")
        gathered = Signal(range(WORDS_LIMIT + 1), name="gathered_count")
        kept = [Signal(64, name=f"gathered_{n}", reset_less=True) for n in range(WORDS_LIMIT)]
        new = [arriving[64 * n : 64 * (n + 1)] for n in range(fetch_words)]
        self.words = []
        for n in range(WORDS_LIMIT):
            is_new = gathered == n // fetch_words * fetch_words
            self.words.append(wire(m, Mux(is_new, new[n % fetch_words], kept[n]), f"fetched_{n}"))
        length = wire(m, self.words[0][8:12], "fetched_length")
        self.is_whole = wire(m, is_there & (gathered + fetch_words >= length), "is_whole")
        partly = wire(m, is_there & ~self.is_whole, "is_partly_there")
        self.address = Signal(TARGET_WIDTH, name="fetch_address")
        self.begin = begin
        m.d.comb += self.address.eq(place)
        with m.If(self.redirects):
            m.d.sync += [place.eq(self.target), begin.eq(self.target), is_there.eq(0), gathered.eq(0), runs.eq(1)]
        with m.Elif(self.stops):
            m.d.sync += [is_there.eq(0), runs.eq(0), gathered.eq(0)]
        with m.Elif(runs & ~is_there):
            m.d.sync += is_there.eq(1)
        with m.Elif(partly):
            m.d.comb += self.address.eq(place + fetch_words)
            m.d.sync += [place.eq(self.address), gathered.eq(gathered + fetch_words)]
            for n, word in enumerate(kept):
                with m.If(gathered == n // fetch_words * fetch_words):
                    m.d.sync += word.eq(new[n % fetch_words])
        with m.Elif(self.moves):
            m.d.comb += self.address.eq(begin + length)
            m.d.sync += [place.eq(self.address), begin.eq(self.address), gathered.eq(0)]


class Registers:
    """The registers, a copy for each of the numbers read at once. `values` belong to the numbers of the cycle in which
    `reads` last held; what is written meanwhile, or in that very cycle, is in them."""

    def __init__(self, m: Module) -> None:
        self.numbers = [Signal(8, name=f"register_number_{n}") for n in range(PORTS)]
        self.reads = Signal(name="reads_registers")
        self.destination, self.result, self.writes = Signal(8), Signal(64, name="written_value"), Signal(name="writes")
        self.clears = Signal(name="clears_registers")
        written = Signal(REGISTER_COUNT, name="was_ever_written")
        with m.If(self.clears):
            m.d.sync += written.eq(0)
        with m.Elif(self.writes):
            m.d.sync += written.bit_select(self.destination, 1).eq(1)
        self.values = []
        for n, number in enumerate(self.numbers):
            m.submodules[f"registers_{n}"] = memory = Memory(shape=unsigned(64), depth=REGISTER_COUNT, init=[])
            write, read = memory.write_port(), memory.read_port()
            same = wire(m, self.writes & (self.destination == number), f"is_written_now_{n}")
            passed = Signal(64, name=f"passed_{n}", reset_less=True)
            is_passed, is_known = Signal(name=f"is_passed_{n}"), Signal(name=f"is_known_{n}")
            m.d.comb += [
                write.en.eq(self.writes),
                write.addr.eq(self.destination),
                write.data.eq(self.result),
                read.addr.eq(number),
                read.en.eq(self.reads),
            ]
            with m.If(self.reads):
                m.d.sync += [
                    passed.eq(self.result),
                    is_passed.eq(same),
                    is_known.eq(number.any() & (same | written.bit_select(number, 1))),
                ]
            self.values.append(wire(m, Mux(is_known, Mux(is_passed, passed, read.data), 0), f"register_value_{n}"))


class Sequencer(Component):
    """See the module. `launch` begins a program at word 0; `is_halted` ends it."""

    def __init__(self, geometry: Geometry, fetch_words: int) -> None:
        self.geometry = geometry
        self.fetch_words = fetch_words
        issue = {f"issue_{unit.value}": Out(issue_signature(unit)) for unit in QUEUES}
        super().__init__(sequencer_ports(geometry, fetch_words) | issue)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetch = Fetch(m, self.instruction_word, self.fetch_words)
        registers = Registers(m)
        self._name_registers(m, fetch, registers)
        m.d.comb += [
            self.instruction_address.eq(fetch.address),
            self.argument_index.eq(field(isa.Argument, "index", Cat(fetch.words))),
        ]
        running, holds = Signal(), Signal(name="holds_instruction")
        words = [Signal(64, name=f"word_{n}", reset_less=True) for n in range(WORDS_LIMIT)]
        begin, finishes = Signal(TARGET_WIDTH, name="begin"), Signal(name="finishes")
        m.d.comb += [
            fetch.moves.eq(fetch.is_whole & (~holds | finishes) & ~fetch.redirects & ~fetch.stops),
            registers.reads.eq(fetch.moves),
            self.word_number.eq(begin),
        ]
        is_first_cycle = Signal()
        """The instruction at hand came in this cycle."""
        m.d.sync += is_first_cycle.eq(fetch.moves)
        with m.If(fetch.moves):
            m.d.sync += [holds.eq(1), begin.eq(fetch.begin)]
            m.d.sync += [mine.eq(theirs) for mine, theirs in zip(words, fetch.words, strict=True)]
        with m.Elif(finishes):
            m.d.sync += holds.eq(0)
        with m.If(self.launch & ~running):
            m.d.comb += [fetch.redirects.eq(1), fetch.target.eq(0), registers.clears.eq(1)]
            m.d.sync += [running.eq(1), self.is_halted.eq(0), self.is_trapped.eq(0)]
        self._execute(m, words, registers, fetch, holds, finishes, running, is_first_cycle)
        return m

    def _name_registers(self, m: Module, fetch: Fetch, registers: Registers) -> None:
        bits = Cat(fetch.words)
        with m.Switch(fetch.words[0][0:8]):
            for kind in QUEUED:
                with m.Case(kind.opcode):
                    for number, place in zip(registers.numbers, register_places(kind), strict=False):
                        m.d.comb += number.eq(bits[place.bit : place.bit + 8])
            for kind, names in OPERANDS.items():
                with m.Case(kind.opcode):
                    for number, name in zip(registers.numbers, names, strict=False):
                        m.d.comb += number.eq(field(kind, name, bits))

    def _execute(
        self,
        m: Module,
        words: list[Signal],
        registers: Registers,
        fetch: Fetch,
        holds: Signal,
        finishes: Signal,
        running: Signal,
        is_first_cycle: Signal,
    ) -> None:
        """The second stage, with the instruction it holds."""
        bits, opcode, values = Cat(words), words[0][0:8], registers.values
        program = Signal(96)
        issues = [getattr(self, f"issue_{unit.value}") for unit in QUEUES]
        for issue in issues:
            m.d.comb += [mine.eq(theirs) for mine, theirs in zip(issue.words, words, strict=False)]
            m.d.comb += [mine.eq(theirs) for mine, theirs in zip(issue.values, values, strict=False)]
        m.submodules.unit = unit = ScalarUnit()
        m.d.comb += [
            unit.function.eq(field(isa.Scalar, "function", bits)),
            unit.dtype.eq(field(isa.Scalar, "dtype", bits)),
            unit.a.eq(values[0]),
            unit.b.eq(values[1]),
        ]
        loaded, load_done = self._load(m, bits, values, holds, is_first_cycle)
        self._store(m, bits, values)
        converted = self._converted(m, bits, values[0])
        rotated = wire(m, (values[0] + bytes_of_rotation("step", bits))[0:64], "rotated")

        def give(kind: type[Instruction], value: Value, name: str = "destination") -> None:
            m.d.comb += [
                registers.destination.eq(field(kind, name, bits)),
                registers.result.eq(value),
                registers.writes.eq(1),
                finishes.eq(1),
            ]

        def stop() -> None:
            m.d.comb += [finishes.eq(1), fetch.stops.eq(1)]
            m.d.sync += [self.is_halted.eq(1), running.eq(0)]

        def branch(kind: type[Instruction], is_taken: Value) -> None:
            m.d.comb += finishes.eq(1)
            with m.If(is_taken):
                m.d.comb += [fetch.redirects.eq(1), fetch.target.eq(field(kind, "target", bits))]

        def case(kind: type[Instruction]) -> Any:
            return m.Case(kind.opcode)

        with m.If(holds), m.Switch(opcode):
            for kind in QUEUED:
                issue = issues[QUEUES.index(kind.unit)]
                with case(kind):
                    m.d.comb += [issue.push.eq(~issue.full), finishes.eq(~issue.full)]
            with case(isa.Halt), m.If(self.queues_are_idle):
                stop()
            with case(isa.Trap):
                stop()
                m.d.sync += [self.is_trapped.eq(1), self.trap_code.eq(field(isa.Trap, "code", bits))]
            with case(isa.Drain), m.If(self.queues_are_idle):
                m.d.comb += finishes.eq(1)
            with case(isa.Wait):
                m.d.comb += [
                    self.take.valid.eq(1),
                    self.take.a.eq(field(isa.Wait, "semaphore", bits)),
                    finishes.eq(self.take.ready),
                ]
            with case(isa.Jump):
                branch(isa.Jump, Const(1, 1))
            with case(isa.BranchNonzero):
                branch(isa.BranchNonzero, values[0].any())
            with case(isa.BranchZero):
                branch(isa.BranchZero, ~values[0].any())
            with case(isa.NextProgram):
                m.d.comb += self.program_request.eq(1)
                with m.If(self.program_ready):
                    give(isa.NextProgram, self.program_exists)
                    with m.If(self.program_exists):
                        m.d.sync += program.eq(self.program_place)
            for kind, triple in ((isa.ProgramId, program), (isa.GridSize, self.grid)):
                with case(kind):
                    axes = Array(triple[32 * n : 32 * (n + 1)] for n in range(3))
                    give(kind, axes[field(kind, "axis", bits)])
            with case(isa.Argument):
                give(isa.Argument, self.argument_value)  # its index went out a cycle before
            with case(isa.Workspace):
                give(isa.Workspace, self.workspace)
            with case(isa.LoadImmediate):
                give(isa.LoadImmediate, field(isa.LoadImmediate, "value", bits))
            with case(isa.Scalar):
                m.d.comb += unit.start.eq(is_first_cycle)
                with m.If(unit.done):
                    give(isa.Scalar, unit.result)
            with case(isa.ScalarSelect):
                give(isa.ScalarSelect, Mux(values[0].any(), values[1], values[2]))
            with case(isa.ScalarConvert):
                give(isa.ScalarConvert, converted)
            with case(isa.Rotate):
                limit = Cat(bytes_of_rotation("limit", bits), Const(0, 1)).as_signed()
                give(isa.Rotate, Mux(rotated.as_signed() >= limit, 0, rotated), "register")
            with case(isa.ScalarLoad), m.If(load_done):
                give(isa.ScalarLoad, loaded)
            with case(isa.ScalarStore):
                m.d.comb += [self.write.valid.eq(1), finishes.eq(self.write.ready)]
            with m.Default():
                stop()
                m.d.sync += self.is_illegal.eq(1)

    def _element(self, m: Module, kind: type[Instruction], bits: Value) -> tuple[Signal, Signal, Signal]:
        """Width code of a scalar's element, whether it is a float, whether it is a flag."""
        width, is_float, is_flag = (
            Signal(size, name=f"{kind.mnemonic}_{what}")
            for size, what in ((3, "width"), (1, "is_float"), (1, "is_flag"))
        )
        with m.Switch(field(kind, "dtype", bits)):
            for dtype in DType:
                with m.Case(dtype.code):
                    m.d.comb += [
                        width.eq(WIDTHS.index(dtype.bits)),
                        is_float.eq(dtype.is_float),
                        is_flag.eq(dtype is DType.I1),
                    ]
        return width, is_float, is_flag

    def _converted(self, m: Module, bits: Value, value: Value) -> Value:
        width, _, is_flag = self._element(m, isa.ScalarConvert, bits)
        code = wire(m, Mux(is_flag, 0, width), "converted_width")
        with_sign = extended(m, value, code, "converted_signed")
        plain = Signal(64, name="converted_unsigned")
        with m.Switch(code):
            for number, size in enumerate(WIDTHS):
                with m.Case(number):
                    m.d.comb += plain.eq(value[0:size])
        return Mux(field(isa.ScalarConvert, "unsigned", bits), plain, with_sign)

    def _load(
        self, m: Module, bits: Value, values: list[Signal], holds: Signal, is_first_cycle: Signal
    ) -> tuple[Value, Value]:
        """An element of the scratchpad, and whether it is there."""
        g = self.geometry
        low = g.offset_bits
        address = wire(m, (field(isa.ScalarLoad, "address", bits) + values[0])[0 : g.address_bits], "load_address")
        is_load = holds & (bits[0:8] == isa.ScalarLoad.opcode)
        asks = Signal(name="asks_for_element")
        waits = Signal(name="waits_for_bank")
        stages: list[Value] = [wire(m, self.read.valid & self.read.ready, "element_asked")]
        m.d.comb += [
            asks.eq(is_load & (is_first_cycle | waits)),
            self.read.valid.eq(asks),
            self.read.row.eq(address[low:]),
        ]
        m.d.sync += waits.eq(asks & ~self.read.ready)
        for number in range(g.latency_cycles):
            later = Signal(name=f"element_on_its_way_{number}")
            m.d.sync += later.eq(stages[-1])
            stages.append(later)
        row_words = [self.read.data[64 * n : 64 * (n + 1)] for n in range(g.row_bytes // 8)]
        word = Array(row_words)[address[3:low]] if len(row_words) > 1 else row_words[0]
        loaded = wire(m, word >> Cat(Const(0, 3), address[0:3]), "loaded")
        width, is_float, is_flag = self._element(m, isa.ScalarLoad, bits)
        plain = Signal(64, name="loaded_unsigned")
        with m.Switch(width):
            for code, size in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += plain.eq(loaded[0:size])
        number = Mux(is_float, plain, extended(m, loaded, width, "loaded_signed"))
        return Mux(is_flag, loaded[0:8].any(), number), stages[-1]

    def _store(self, m: Module, bits: Value, values: list[Signal]) -> None:
        """The row a register's element is written into."""
        g = self.geometry
        low = g.offset_bits
        address = wire(m, (field(isa.ScalarStore, "address", bits) + values[0])[0 : g.address_bits], "store_address")
        width, _, is_flag = self._element(m, isa.ScalarStore, bits)
        content, ones = Signal(64, name="stored"), Signal(8, name="stored_bytes")
        with m.Switch(width):
            for code, size in enumerate(WIDTHS):
                with m.Case(code):
                    m.d.comb += [content.eq(values[1][0:size]), ones.eq((1 << max(size // 8, 1)) - 1)]
        element = wire(m, Mux(is_flag, values[1][0], content), "stored_element")
        placed = wire(m, (element << Cat(Const(0, 3), address[0:3]))[0:64], "stored_word")
        covers = wire(m, (ones << address[0:3])[0:8], "stored_mask")
        m.d.comb += [
            self.write.row.eq(address[low:]),
            self.write.data.eq(Cat([placed] * (g.row_bytes // 8))),
            self.write.mask.eq(Cat(Mux(address[3:low] == n, covers, 0) for n in range(g.row_bytes // 8))),
        ]
