"""The vector engine: lanes that run microprograms in lockstep, with readers and a writer around them.

Elementwise instructions go in batches of up to GROUPS vectors. A step of the program is issued for one vector of the
batch after the other, a cycle each, so that a step's result is there when the next step of the same vector reads it.
While a batch is computed, the readers fetch the next and the writer puts the last away.

A reduction keeps its partial results in registers beside the lanes; a row's vectors are combined with them in turn,
then the upper half of what is left is shifted down and combined with the lower until one is left.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa import definitions as isa
from tapeout.isa import microcode
from tapeout.isa.core_design import DEPTH, GROUPS
from tapeout.isa.fields import TILE_BITS, Unit
from tapeout.isa.microcode import STEP_BITS, Operation
from tapeout.numerics.dtypes import DType
from tapeout.numerics.operations import REDUCTION_PARTIALS, Function
from tapeout.rtl.arithmetic import wire
from tapeout.rtl.descriptor import TileOperand, View, value_count, word_count
from tapeout.rtl.lane import Lane
from tapeout.rtl.scratchpad import Geometry, read_signature, write_signature
from tapeout.rtl.sequencer import iterations, step_fields
from tapeout.rtl.sharing import instantiate
from tapeout.rtl.tiles import TileReader, TileWriter, Walker

IOTA_CODE, GATHER_CODE = 127, 126
"""Places in the table of programs that no function has."""


PICKED_BY_FLAG = tuple(f for f in Function if all(f.operand_dtypes(d)[0] is DType.I1 for d in f.dtypes))
"""Functions whose first operand is an i1, whatever the instruction's type."""


def size_of(m: Module, code: Value, name: str) -> Signal:
    """Logarithm of an element's size, by its type's code."""
    size = Signal(2, name=name)
    with m.Switch(code):
        for dtype in DType:
            with m.Case(dtype.code):
                m.d.comb += size.eq(dtype.size_bytes.bit_length() - 1)
    return size


def start_table(rom: microcode.Rom) -> list[int]:
    """First steps by function or conversion: the code of the type, then of the function; or, in the upper half, of
    both types, `unsigned` and the rounding."""
    table = [0] * 4096
    for key, start in rom.start_of.items():
        if key[0] == "function":
            table[key[2].code | key[1].code << 4] = start
        elif key[0] == "convert":
            _, dtype, result_dtype, is_unsigned, rounding = key
            table[2048 | dtype.code | result_dtype.code << 4 | is_unsigned << 8 | rounding.code << 9] = start
        elif key[0] == "iota":
            for dtype in DType:
                table[dtype.code | IOTA_CODE << 4] = start
        else:
            table[key[1].code | GATHER_CODE << 4] = start
    return table


OPERAND_NAMES = ("result", "a", "b", "c")


class Decoded:
    """What an instruction of the vector queue says, as it stands in its queue: `shape`; for each operand its address,
    strides in bytes, size (a logarithm), whether it is a flag, whether it is a tile, its value if it is none; and
    `index`, its place in the table of programs. `gather` has its indices as a and what it picks from as c."""

    def __init__(self, m: Module, words: list[Signal], values: list[Signal], address_bits: int) -> None:
        kinds = (isa.Map1, isa.Map2, isa.Map3, isa.Convert, isa.Reduce, isa.Iota, isa.Gather)
        self.views = {kind: View(kind, words, values) for kind in kinds}
        self.opcode = words[0][0:8]
        names = OPERAND_NAMES
        self.index = Signal(12, name="decoded_index")
        self.codes = {name: Signal(4, name=f"{name}_code") for name in names}
        self.base = {name: Signal(address_bits, name=f"decoded_{name}_base") for name in names}
        self.strides = {
            name: [Signal(address_bits, name=f"decoded_{name}_stride_{d}") for d in range(4)] for name in names
        }
        self.size = {name: Signal(2, name=f"decoded_{name}_size") for name in names}
        self.is_flag = {name: Signal(name=f"decoded_{name}_is_flag") for name in names}
        self.is_tile = {name: Signal(name=f"decoded_{name}_is_tile") for name in names}
        self.scalar = {name: Signal(64, name=f"decoded_{name}_scalar") for name in names}
        bits = {name: Signal(TILE_BITS, name=f"{name}_bits") for name in names}
        content = {name: Signal(64, name=f"{name}_content") for name in names}
        is_there = {name: Signal(name=f"{name}_is_there") for name in names}
        self.shape = [Signal(16, name=f"decoded_extent_{d}") for d in range(4)]
        with m.Switch(self.opcode):
            for kind, view in self.views.items():
                with m.Case(kind.opcode):
                    m.d.comb += [mine.eq(theirs) for mine, theirs in zip(self.shape, view.extents(), strict=True)]
                    self._types(m, kind, view)
                    of_operand = {"result": "result", "a": "a", "b": "b", "c": "c"}
                    if kind is isa.Gather:
                        of_operand = {"result": "result", "a": "index", "c": "source"}
                    for name, theirs in of_operand.items():
                        if view.has(theirs):
                            m.d.comb += [
                                bits[name].eq(view.field(theirs)),
                                content[name].eq(view.register(theirs)),
                                is_there[name].eq(1),
                            ]
        for name in names:
            tile = TileOperand(bits[name], content[name])
            size = size_of(m, self.codes[name], f"size_of_{name}")
            flag = self.codes[name] == DType.I1.code
            m.d.comb += [
                self.base[name].eq(tile.base),
                self.size[name].eq(size),
                self.is_flag[name].eq(flag & (self.opcode != isa.Gather.opcode)),
                self.is_tile[name].eq(is_there[name] & ~tile.is_register),
                *(mine.eq(theirs << size) for mine, theirs in zip(self.strides[name], tile.strides, strict=True)),
            ]
            with m.Switch(Cat(size, flag)):
                for code in range(4):
                    with m.Case(code):
                        m.d.comb += self.scalar[name].eq(content[name][0 : 8 << code])
                with m.Default():
                    m.d.comb += self.scalar[name].eq(content[name][0])

    def _types(self, m: Module, kind: type, view: View) -> None:
        """Element types and the place in the table, for one kind of instruction."""
        dtype = view.field("dtype")
        m.d.comb += [code.eq(dtype) for code in self.codes.values()]
        index = dtype
        if view.has("function"):
            function = view.field("function")
            index = Cat(dtype, function[0:7])
            for each in PICKED_BY_FLAG:
                with m.If(function == each.code):
                    m.d.comb += self.codes["a"].eq(DType.I1.code)
            with m.Switch(function), m.Case(*(f.code for f in Function if f.is_predicate)):
                m.d.comb += self.codes["result"].eq(DType.I1.code)
        if kind is isa.Convert:
            index = Cat(dtype, view.field("result_dtype"), view.field("unsigned"), view.field("rounding"), Const(1, 1))
            m.d.comb += self.codes["result"].eq(view.element_code("result"))
        elif kind is isa.Iota:
            index = Cat(dtype, Const(IOTA_CODE, 7))
        elif kind is isa.Gather:
            index_code = view.element_code("index")
            index = Cat(index_code, Const(GATHER_CODE, 7))
            m.d.comb += self.codes["a"].eq(index_code)
        m.d.comb += self.index.eq(index)


class VectorEngine(Component):
    """See the module."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__(
            {
                "valid": In(1),
                "words": In(data.ArrayLayout(64, word_count(Unit.VECTOR))),
                "values": In(data.ArrayLayout(64, value_count(Unit.VECTOR))),
                "accept": Out(1),
                "done": Out(1),
                "is_misplaced": Out(1),
                "readers": Out(read_signature(geometry)).array(3),
                "writer": Out(write_signature(geometry)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        g = self.geometry
        lane_count = g.lane_count
        rom = microcode.rom(microcode.vector_programs())

        # ----------------------------------------------------------------------- what the instruction says

        decoded = Decoded(m, list(self.words), list(self.values), g.address_bits)
        opcode = self.words[0][0:8]
        shape = [Signal(16, name=f"extent_{d}") for d in range(4)]
        names = OPERAND_NAMES
        bases = {name: Signal(g.address_bits, name=f"{name}_base") for name in names}
        strides = {name: [Signal(g.address_bits, name=f"{name}_stride_{d}") for d in range(4)] for name in names}
        sizes = {name: Signal(2, name=f"{name}_size") for name in names}
        is_flag = {name: Signal(name=f"{name}_is_flag") for name in names}
        is_tile = {name: Signal(name=f"{name}_is_tile") for name in names}
        scalar = {name: Signal(64, name=f"{name}_scalar") for name in names}
        is_reduce, is_gather = Signal(), Signal()
        step_between = Signal(64)
        iota_base, iota_steps = Signal(64), [Signal(64, name=f"iota_step_{d}") for d in range(4)]
        table_index = Signal(12)
        m.submodules.starts = starts = Memory(
            shape=unsigned(len(rom.words).bit_length()), depth=4096, init=start_table(rom)
        )
        starts_read = starts.read_port()
        m.d.comb += [starts_read.addr.eq(table_index), starts_read.en.eq(1)]
        begin = Signal(len(rom.words).bit_length())
        latch = Signal()
        with m.If(latch):
            gather = decoded.views[isa.Gather]
            iota = decoded.views[isa.Iota]
            gather_size = size_of(m, gather.field("dtype"), "gather_size")
            m.d.sync += [
                table_index.eq(decoded.index),
                is_reduce.eq(opcode == isa.Reduce.opcode),
                is_gather.eq(opcode == isa.Gather.opcode),
                *(mine.eq(theirs) for mine, theirs in zip(shape, decoded.shape, strict=True)),
                iota_base.eq(iota.register("start")),
                *(iota_steps[d].eq(iota.register("steps", d)) for d in range(4)),
                step_between.eq(gather.field("stride") << gather_size),
            ]
            for name in names:
                m.d.sync += [
                    bases[name].eq(decoded.base[name]),
                    sizes[name].eq(decoded.size[name]),
                    is_flag[name].eq(decoded.is_flag[name]),
                    is_tile[name].eq(decoded.is_tile[name]),
                    scalar[name].eq(decoded.scalar[name]),
                    *(mine.eq(theirs) for mine, theirs in zip(strides[name], decoded.strides[name], strict=True)),
                ]

        # -------------------------------------------------------------------------------- units around the lanes

        start = Signal()
        readers = {
            "a": TileReader(g, DEPTH),
            "b": TileReader(g, DEPTH),
            "c": TileReader(g, DEPTH, displaced=True),
        }
        writer = TileWriter(g)
        instantiate(m, "writer", writer)
        m.submodules.pace = pace = Walker(lane_count, 64)
        pace_shape = shape
        for number, (name, reader) in enumerate(readers.items()):
            instantiate(m, f"reader_{name}", reader)
            port = self.readers[number]
            m.d.comb += [
                reader.start.eq(start & is_tile[name]),
                reader.size.eq(sizes[name]),
                reader.is_flag.eq(is_flag[name]),
                reader.base.eq(bases[name]),
                *(reader.shape[d].eq(shape[d]) for d in range(4)),
                *(reader.strides[d].eq(strides[name][d]) for d in range(4)),
                port.valid.eq(reader.port.valid),
                port.row.eq(reader.port.row),
                reader.port.ready.eq(port.ready),
                reader.port.data.eq(port.data),
            ]
        m.d.comb += [
            writer.start.eq(start),
            writer.size.eq(sizes["result"]),
            writer.base.eq(bases["result"]),
            *(writer.shape[d].eq(shape[d]) for d in range(3)),
            writer.shape[3].eq(Mux(is_reduce, 1, shape[3])),
            *(writer.strides[d].eq(strides["result"][d]) for d in range(4)),
            writer.wanted.eq((1 << lane_count) - 1),
            self.writer.valid.eq(writer.port.valid),
            self.writer.row.eq(writer.port.row),
            self.writer.data.eq(writer.port.data),
            self.writer.mask.eq(writer.port.mask),
            writer.port.ready.eq(self.writer.ready),
            pace.start.eq(start),
            pace.base.eq(iota_base),
            *(pace.shape[d].eq(pace_shape[d]) for d in range(4)),
            *(pace.strides[d].eq(iota_steps[d]) for d in range(4)),
            self.is_misplaced.eq(
                readers["a"].misplaced | readers["b"].misplaced | readers["c"].misplaced | writer.misplaced
            ),
        ]

        # ------------------------------------------------------------------------------------- running a program

        m.submodules.microcode = steps = Memory(shape=unsigned(STEP_BITS), depth=len(rom.words), init=rom.words)
        steps_read = steps.read_port()
        m.submodules.constants = pool = Memory(shape=unsigned(64), depth=len(rom.constants), init=rom.constants)
        pool_reads = [pool.read_port() for _ in range(3)]
        step = Signal(len(rom.words).bit_length())
        operation, width, numbers, places, target, is_result, is_last = step_fields(steps_read.data)
        group = Signal(range(GROUPS))
        group_ends = wire(m, group == GROUPS - 1, "group_ends")
        running = Signal()
        issues = Signal()
        """A step is issued for `group` now."""
        divides = wire(m, operation >= Operation.DIVIDE.value, "divides")
        run_ends = wire(m, issues & group_ends & is_last & ~divides, "run_ends_by_issue")
        run_done, run_go = Signal(), Signal()
        next_step = wire(m, Mux(is_last, begin, step + 1)[0 : len(step)], "next_step")
        moves_on = Signal()
        m.d.comb += [
            steps_read.en.eq(1),
            steps_read.addr.eq(Mux(moves_on, next_step, step)),
        ]
        with m.If(moves_on):
            m.d.sync += step.eq(next_step)
        for port, number in zip(pool_reads, numbers, strict=True):
            m.d.comb += [port.addr.eq(number[0 : len(port.addr)]), port.en.eq(1)]

        turns, turns_left = iterations(operation, width, m, "turns"), Signal(6)
        divider_start, divider_writes = Signal(), Signal()
        with m.FSM(name="run"):
            with m.State("ISSUE"), m.If(running):
                m.d.comb += issues.eq(1)
                with m.If(divides):
                    m.next = "START"
                with m.Else():
                    m.d.sync += group.eq(Mux(group_ends, 0, group + 1))
                    m.d.comb += moves_on.eq(group_ends)
                    m.d.comb += run_done.eq(run_ends)
            with m.State("START"):  # operands are there
                m.d.comb += divider_start.eq(1)
                m.d.sync += turns_left.eq(turns)
                m.next = "TURN"
            with m.State("TURN"):
                m.d.sync += turns_left.eq(turns_left - 1)
                with m.If(turns_left == 0):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [divider_writes.eq(1), moves_on.eq(group_ends), run_done.eq(group_ends & is_last)]
                m.d.sync += group.eq(Mux(group_ends, 0, group + 1))
                m.next = "ISSUE"
        with m.If(run_done):
            m.d.sync += running.eq(0)
        with m.If(run_go):
            m.d.sync += running.eq(1)

        # What follows an issued step through the lanes.
        def later(value: Value, name: str, cycles: int) -> Value:
            for stage in range(cycles):
                after = Signal(value.shape(), name=f"{name}_{stage + 1}")
                m.d.sync += after.eq(value)
                value = after
            return value

        plain_issue = issues & ~divides
        operation_1, width_1 = later(operation, "operation", 1), later(width, "width", 1)
        places_1 = [later(place, f"place_{n}", 1) for n, place in enumerate(places)]
        numbers_1 = [later(number[0:2], f"number_{n}", 1) for n, number in enumerate(numbers)]
        group_1 = later(group, "group", 1)
        write_3 = later(plain_issue, "write", 3)
        target_3, group_3 = later(target, "target", 3), later(group, "group_written", 3)
        is_result_3 = later(is_result, "is_result", 3)
        writes = wire(m, write_3 | divider_writes, "writes")
        write_target = wire(m, Mux(divider_writes, target, target_3), "write_target")
        write_group = wire(m, Mux(divider_writes, group, group_3), "write_group")
        write_result = wire(m, Mux(divider_writes, is_result, is_result_3), "write_result")

        # ---------------------------------------------------------------------------------------- results

        slot_bits = (DEPTH - 1).bit_length()
        results_head, results_tail = Signal(slot_bits), Signal(slot_bits)
        results_held = Signal(range(DEPTH + 1))
        """Places taken, from the start of a batch on."""
        results_ready = Signal(range(DEPTH + 1))
        results_pop = Signal()
        push_now, push_count = Signal(), Signal(range(GROUPS + 1))
        batch_tail = Signal(slot_bits)
        tail_3 = later(batch_tail, "batch_tail", 3)
        tail_of_write = Mux(divider_writes, batch_tail, tail_3)
        write_slot = wire(m, (tail_of_write + write_group)[0:slot_bits], "write_slot")
        read_slot = wire(m, (results_head + results_pop)[0:slot_bits], "read_slot")
        with m.If(results_pop):
            m.d.sync += results_head.eq(results_head + 1)
        claim = Signal(range(GROUPS + 1))
        m.d.sync += [
            results_held.eq(results_held + claim - results_pop),
            results_ready.eq(results_ready + Mux(push_now, push_count, 0) - results_pop),
        ]

        # ------------------------------------------------------------------------------------------ reductions

        partial_groups = REDUCTION_PARTIALS // lane_count
        half = REDUCTION_PARTIALS // 2
        partial = [
            [Signal(64, name=f"partial_{p}_{n}", reset_less=True) for n in range(lane_count)]
            for p in range(partial_groups)
        ]
        flat = [value for row in partial for value in row]
        distance = Signal(range(half + 1))
        shifted = [Signal(64, name=f"shifted_{n}", reset_less=True) for n in range(half)]
        level: list[Value] = list(flat)
        for bit in reversed(range(len(distance))):
            by = 1 << bit
            level = [
                wire(m, Mux(distance[bit], level[n + by], value), f"shift_{by}_{n}") if n + by < len(level) else value
                for n, value in enumerate(level)
            ]
        shift_now = Signal()
        with m.If(shift_now):
            m.d.sync += [mine.eq(level[n]) for n, mine in enumerate(shifted)]
        combines_halves = Signal()
        lane_limit = Signal(range(REDUCTION_PARTIALS + 1))
        """Partial results that the run at hand changes: the first ones."""
        set_partial, set_group = Signal(), Signal(range(max(partial_groups, 2)))
        set_partial_1, set_group_1 = later(set_partial, "set_partial", 1), later(set_group, "set_group", 1)

        # ------------------------------------------------------------------------------------------------- lanes

        bases_of_group = [Signal(64, name=f"base_of_group_{n}") for n in range(GROUPS)]
        results: list[Value] = []
        for n in range(lane_count):
            lane = Lane(group_count=GROUPS, temporary_count=rom.temporary_count)
            instantiate(m, f"lane_{n}", lane)
            own_partial = Array([row[n] for row in partial] + [Const(0, 64)] * (GROUPS - partial_groups))[group_1]
            own_shifted = Array(
                [shifted[p * lane_count + n] if p * lane_count + n < half else Const(0, 64) for p in range(GROUPS)]
            )[group_1]
            operands = [
                wire(m, Mux(is_tile[name], readers[name].data[n], scalar[name]), f"operand_{name}_{n}")
                for name in "abc"
            ]
            first = wire(m, Mux(is_reduce, own_partial, operands[0]), f"first_{n}")
            second = wire(m, Mux(is_reduce, Mux(combines_halves, own_shifted, operands[0]), operands[1]), f"second_{n}")
            m.d.comb += [
                lane.operation.eq(operation_1),
                lane.width.eq(width_1),
                lane.write.eq(writes & ~write_result),
                lane.write_address.eq(Cat(write_target[0 : lane.temporary_bits], write_group)),
                lane.divider_start.eq(divider_start),
                lane.divider_rounds.eq(divider_writes & (operation >= Operation.FLOAT_DIVIDE.value)),
                lane.divider_writes.eq(divider_writes),
            ]
            for position, letter in enumerate("abc"):
                special = Array([Const(n, 64), Array(bases_of_group)[group_1], step_between, Const(0, 64)])
                m.d.comb += [
                    getattr(lane, f"read_{letter}").eq(Cat(numbers[position][0 : lane.temporary_bits], group)),
                    getattr(lane, f"place_{letter}").eq(places_1[position]),
                    getattr(lane, f"operand_{letter}").eq(
                        Mux(numbers_1[position][1], operands[2], Mux(numbers_1[position][0], second, first))
                    ),
                    getattr(lane, f"constant_{letter}").eq(pool_reads[position].data),
                    getattr(lane, f"special_{letter}").eq(special[numbers_1[position]]),
                ]
            m.submodules[f"results_{n}"] = memory = Memory(shape=unsigned(64), depth=DEPTH, init=[])
            result_write, result_read = memory.write_port(), memory.read_port()
            push_partial = Signal(name=f"push_partial_{n}")
            m.d.comb += [
                result_write.en.eq((writes & write_result & ~is_reduce) | push_partial),
                result_write.addr.eq(Mux(push_partial, results_tail, write_slot)),
                result_write.data.eq(Mux(push_partial, partial[0][n], lane.result)),
                result_read.addr.eq(read_slot),
                result_read.en.eq(1),
            ]
            results.append(result_read.data)
            for p in range(partial_groups):
                with m.If(set_partial_1 & (set_group_1 == p)):
                    m.d.sync += partial[p][n].eq(readers["a"].data[n])
                with m.If(writes & write_result & is_reduce & (write_group == p) & (lane_limit > p * lane_count + n)):
                    m.d.sync += partial[p][n].eq(lane.result)
            m.d.comb += writer.data[n].eq(Mux(is_gather, readers["c"].data[n], result_read.data))
            m.d.comb += readers["c"].displacements[n].eq(result_read.data[0 : g.address_bits])
            setattr(self, f"_push_{n}", push_partial)

        # ----------------------------------------------------------------------------------- results go out

        displaced = readers["c"]
        m.d.comb += displaced.is_displaced.eq(is_gather)
        with m.If(is_gather):
            m.d.comb += [
                displaced.displaced_valid.eq(results_ready.any()),
                results_pop.eq(displaced.displaced_valid & displaced.displaced_ready),
                writer.valid.eq(displaced.available.any()),
                displaced.release.eq(writer.valid & writer.ready),
                displaced.slot.eq(displaced.release),
            ]
        with m.Else():
            m.d.comb += [
                writer.valid.eq(results_ready.any()),
                results_pop.eq(writer.valid & writer.ready),
                displaced.slot.eq(group),
            ]

        # ------------------------------------------------------------------------------- batches, one after another

        formed, forming = Signal(), Signal(range(GROUPS + 1))
        next_bases = [Signal(64, name=f"next_base_{n}") for n in range(GROUPS)]
        form_taken = Signal()
        with m.If(pace.valid & ~formed & ~is_reduce & ~start):
            m.d.comb += pace.next.eq(1)
            m.d.sync += forming.eq(forming + 1)
            with m.Switch(forming):
                for n in range(GROUPS):
                    with m.Case(n):
                        m.d.sync += next_bases[n].eq(pace.address)
            m.d.sync += formed.eq((forming == GROUPS - 1) | pace.last)
        with m.If(form_taken):
            m.d.sync += [formed.eq(0), forming.eq(0)]

        enough = Signal()
        batch = Signal(range(GROUPS + 1))
        missing = [
            is_tile[name] & (readers[name].available < forming) & (~is_gather if name == "c" else 1) for name in "abc"
        ]
        m.d.comb += enough.eq(formed & ~Cat(missing).any() & (results_held + forming <= DEPTH))
        release = Signal(range(GROUPS + 1))
        for name in "ab":
            m.d.comb += readers[name].release.eq(Mux(is_tile[name], release, 0))
        with m.If(~is_gather):
            m.d.comb += displaced.release.eq(Mux(is_tile["c"], release, 0))

        # A batch's results are all written three cycles after its last step was issued (a division's at once).
        ended = Signal()
        ended_later = later(ended, "ended", 3)
        batch_later = later(batch, "batch_written", 3)
        m.d.comb += [push_now.eq(ended_later), push_count.eq(Mux(is_reduce, 1, batch_later))]

        row_left = Signal(16)
        """Elements of the row that are not yet in the partial results."""
        chunk = Signal(range(max(partial_groups, 2) + 1))
        live = Signal(range(REDUCTION_PARTIALS + 1))
        drain = Signal(3)
        rows_left = Signal()
        pushes = Signal()
        for n in range(lane_count):
            m.d.comb += getattr(self, f"_push_{n}").eq(pushes)
        elements_in_run = wire(
            m, Mux(row_left < REDUCTION_PARTIALS, row_left, REDUCTION_PARTIALS)[0 : len(live)], "elements_in_run"
        )
        vectors_in_run = wire(
            m, ((elements_in_run + lane_count - 1) >> (lane_count - 1).bit_length())[0:3], "vectors_in_run"
        )
        row_count_walker = pace
        all_written = Signal()
        m.d.comb += all_written.eq(writer.is_idle & ~results_held.any())
        for name in "ab":
            m.d.comb += readers[name].slot.eq(Mux(is_reduce & set_partial, 0, group))

        with m.FSM(name="engine"):
            with m.State("IDLE"), m.If(self.valid):
                m.d.comb += [self.accept.eq(1), latch.eq(1)]
                m.next = "TABLE"
            with m.State("TABLE"):
                m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.sync += begin.eq(starts_read.data)
                # The innermost dimension is the one vectors run along: outer ones move in while it has one element.
                with m.If(~is_reduce & (shape[3] == 1) & (Cat(shape[0:3]) != (1 | 1 << 16 | 1 << 32))):
                    m.d.sync += [shape[d].eq(shape[d - 1] if d else 1) for d in range(4)]
                    for name in names:
                        m.d.sync += [strides[name][d].eq(strides[name][d - 1] if d else 0) for d in range(4)]
                    m.d.sync += [iota_steps[d].eq(iota_steps[d - 1] if d else 0) for d in range(4)]
                with m.Else():
                    m.next = "START"
            with m.State("START"):
                m.d.comb += start.eq(1)
                m.d.sync += [step.eq(begin), group.eq(0)]
                with m.If(table_index[4:11] == IOTA_CODE):
                    m.d.sync += step_between.eq(iota_steps[3])
                m.next = "FILL"
            with m.State("FILL"):  # the first step is read from the microcode
                m.d.sync += [row_left.eq(shape[3]), rows_left.eq(1)]
                m.next = "ROW"
                with m.If(~is_reduce):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += release.eq(0)
                with m.If(enough):
                    m.d.comb += [run_go.eq(1), form_taken.eq(1), claim.eq(forming)]
                    m.d.sync += [
                        batch.eq(forming),
                        batch_tail.eq(results_tail),
                        results_tail.eq(results_tail + forming),
                    ]
                    m.d.sync += [mine.eq(theirs) for mine, theirs in zip(bases_of_group, next_bases, strict=True)]
                    m.next = "RUN"
                with m.Elif(~pace.valid & ~formed & all_written & ~running):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("RUN"), m.If(run_done):
                m.d.comb += [ended.eq(1), release.eq(batch)]
                # The next batch follows without a pause if it is there.
                m.next = "WAIT"

            with m.State("ROW"):
                m.d.sync += [
                    live.eq(Mux(shape[3] < REDUCTION_PARTIALS, shape[3], REDUCTION_PARTIALS)),
                    row_left.eq(shape[3]),
                    chunk.eq(0),
                    combines_halves.eq(0),
                ]
                m.next = "TAKE"
            with m.State("TAKE"), m.If(readers["a"].available.any()):
                m.d.comb += [set_partial.eq(1), set_group.eq(chunk), release.eq(1)]
                m.d.sync += chunk.eq(chunk + 1)
                m.d.sync += row_left.eq(Mux(row_left > lane_count, row_left - lane_count, 0))
                with m.If(row_left <= lane_count):
                    m.d.sync += drain.eq(1)
                    m.next = "HALVE"
                with m.Elif(chunk == partial_groups - 1):
                    m.next = "GATHER_RUN"
            with m.State("GATHER_RUN"), m.If(readers["a"].available >= vectors_in_run):
                m.d.comb += run_go.eq(1)
                m.d.sync += [lane_limit.eq(elements_in_run), batch.eq(vectors_in_run)]
                m.d.sync += row_left.eq(row_left - elements_in_run)
                m.next = "COMBINE"
            with m.State("COMBINE"), m.If(run_done):
                m.d.comb += release.eq(batch)
                with m.If(row_left.any()):
                    m.d.sync += drain.eq(3)
                    m.next = "DRAIN_RUN"
                with m.Else():
                    m.d.sync += drain.eq(4)
                    m.next = "HALVE"
            with m.State("DRAIN_RUN"):
                m.d.sync += drain.eq(drain - 1)
                with m.If(drain == 0):
                    m.next = "GATHER_RUN"
            with m.State("HALVE"):  # after what is on its way into the partial results
                m.d.sync += [drain.eq(drain - 1), distance.eq((live + 1) >> 1), combines_halves.eq(1)]
                with m.If(drain == 0):
                    m.next = "SHIFT"
                    with m.If(live == 1):
                        m.next = "RESULT"
            with m.State("SHIFT"):
                m.d.comb += shift_now.eq(1)
                m.d.sync += [lane_limit.eq(live - distance), live.eq(distance)]
                m.next = "HALF_GO"
            with m.State("HALF_GO"):
                m.d.comb += run_go.eq(1)
                m.next = "HALF_RUN"
            with m.State("HALF_RUN"), m.If(run_done):
                m.d.sync += drain.eq(4)
                m.next = "HALVE"
            with m.State("RESULT"), m.If(results_held < DEPTH):
                m.d.comb += [pushes.eq(1), claim.eq(1), ended.eq(1)]
                m.d.sync += [results_tail.eq(results_tail + 1), batch.eq(1)]
                m.next = "NEXT_ROW"
            with m.State("NEXT_ROW"):
                # The pace counts the row's vectors; it is on the last when the tile is done.
                m.d.comb += row_count_walker.next.eq(1)
                with m.If(row_count_walker.last):
                    m.next = "FINISH"
                with m.Elif(row_count_walker.index[3] + lane_count >= shape[3]):
                    m.next = "ROW"
            with m.State("FINISH"), m.If(all_written):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
