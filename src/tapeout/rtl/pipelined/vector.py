"""The pipelined vector engine: an element a lane and cycle, instructions one behind the other.

The front looks an instruction's recipe up and finds its tiles' regions; once nothing that is still to be written stands
in its way, readers, lanes and writer get their share of it and begin as soon as they are through with the one before.
An instruction that reads, element for element, what the one before writes follows it vector by vector.

What has no recipe (reductions, gather, special functions, divisions, products of 64 bits) runs on the microcoded
engine, alone: when all before it is written.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from tapeout.isa import definitions as isa
from tapeout.isa.core_design import DEPTH
from tapeout.isa.fields import Unit
from tapeout.rtl.arithmetic import register, wire
from tapeout.rtl.descriptor import value_count, word_count
from tapeout.rtl.pipelined.lane import (
    CHOOSE_STAGE,
    LANE_CYCLES,
    NARROW_STAGE,
    OPERATE_STAGE,
    WIDEN_STAGE,
    PipelinedLane,
)
from tapeout.rtl.pipelined.recipes import FIELD_BITS, RECIPE_BITS, recipe_table
from tapeout.rtl.pipelined.regions import InFlight, region_of
from tapeout.rtl.scratchpad import Geometry, read_signature, write_signature
from tapeout.rtl.sharing import instantiate
from tapeout.rtl.tiles import TileReader, TileWriter, Walker
from tapeout.rtl.vector import OPERAND_NAMES, Decoded
from tapeout.rtl.vector import VectorEngine as MicrocodedEngine

RESULTS = 16
"""Vectors between the lanes' operands and the writer."""
STARTS = 3
"""Instructions that may wait in front of a reader, the lanes or the writer."""
PIPELINED = (isa.Map1, isa.Map2, isa.Map3, isa.Convert, isa.Iota)
"""Instructions that have recipes, for most of their functions and types."""
RECIPE = data.StructLayout(FIELD_BITS)


def tile_layout(address_bits: int) -> data.StructLayout:
    """What a reader or the writer is told of a tile; `follows`: vector by vector what entry `entry` of those in flight
    writes."""
    return data.StructLayout(
        {
            "extents": data.ArrayLayout(16, 4),
            "base": address_bits,
            "strides": data.ArrayLayout(address_bits, 4),
            "size": 2,
            "is_flag": 1,
            "follows": 1,
            "entry": (InFlight.SLOTS - 1).bit_length(),
        }
    )


BEATS = data.StructLayout(
    {
        "extents": data.ArrayLayout(16, 4),
        "recipe": RECIPE_BITS,
        "is_tile": 3,
        "is_iota": 1,
        "scalars": data.ArrayLayout(64, 3),
        "start": 64,
        "steps": data.ArrayLayout(64, 4),
    }
)
"""What the lanes are told of an instruction."""


class Front:
    """The instruction at the head of the queue, looked into for two cycles: then `is_ready`, and everything else here
    is about it. Outer dimensions have moved in while the innermost has one element."""

    def __init__(self, m: Module, engine: Any, taken: Value) -> None:
        decoded = Decoded(m, list(engine.words), list(engine.values), engine.geometry.address_bits)
        bits = engine.geometry.address_bits
        age = Signal(2, name="front_age")
        with m.If(~engine.valid | taken):
            m.d.sync += age.eq(0)
        with m.Elif(age < 2):
            m.d.sync += age.eq(age + 1)
        self.is_ready = wire(m, engine.valid & (age == 2), "front_is_ready")
        m.submodules.recipes = table = Memory(shape=RECIPE_BITS, depth=4096, init=recipe_table())
        read = table.read_port()
        m.d.comb += [read.addr.eq(decoded.index), read.en.eq(1)]
        self.recipe = read.data
        one = Const(1, 1)
        is_pipelined = decoded.opcode.matches(*(kind.opcode for kind in PIPELINED))
        self.is_pipelined = wire(m, register(m, is_pipelined, one, "is_of_pipelined_kind") & read.data[0], "has_recipe")
        self.is_iota = register(m, decoded.opcode == isa.Iota.opcode, one, "is_iota")

        outer_ones = [Cat(extent == 1 for extent in decoded.shape[d:]).all() for d in range(4)]
        places = wire(
            m, Mux(outer_ones[0] | ~outer_ones[3], 0, Mux(~outer_ones[2], 1, Mux(~outer_ones[1], 2, 3))), "places_in"
        )

        def moved(values: list[Value], filling: int, name: str) -> list[Signal]:
            result = []
            for d, value in enumerate(values):
                here = Signal(value.shape(), name=f"{name}_in_{d}")
                with m.Switch(places):
                    for count in range(4):
                        with m.Case(count):
                            m.d.comb += here.eq(values[d - count] if d >= count else filling)
                result.append(register(m, here, one, f"{name}_{d}"))
            return result

        iota = decoded.views[isa.Iota]
        self.shape = moved(list(decoded.shape), 1, "front_shape")
        self.start = register(m, iota.register("start"), one, "iota_start")
        self.steps = moved([iota.register("steps", d) for d in range(4)], 0, "iota_step")
        self.base, self.strides, self.size = {}, {}, {}
        self.is_flag, self.is_tile, self.scalar, self.region = {}, {}, {}, {}
        for name in OPERAND_NAMES:
            self.base[name] = register(m, decoded.base[name], one, f"front_{name}_base")
            self.strides[name] = moved(list(decoded.strides[name]), 0, f"front_{name}_stride")
            self.size[name] = register(m, decoded.size[name], one, f"front_{name}_size")
            self.is_flag[name] = register(m, decoded.is_flag[name], one, f"front_{name}_is_flag")
            self.is_tile[name] = register(m, decoded.is_tile[name], one, f"front_{name}_is_tile")
            self.scalar[name] = register(m, decoded.scalar[name], one, f"front_{name}_scalar")
            self.region[name] = region_of(
                m, self.base[name], self.strides[name], self.shape, self.size[name], f"{name}_region"
            )
        self.bits = bits

    def key(self, name: str) -> Value:
        """Equal keys are the same elements in the same order."""
        return Cat(*self.shape, self.base[name], *self.strides[name], self.size[name])

    def tile(self, name: str, follows: Value, entry: Value) -> Value:
        """`tile_layout` of an operand."""
        return Cat(
            *self.shape, self.base[name], *self.strides[name], self.size[name], self.is_flag[name], follows, entry
        )


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
        m.submodules.microcoded = microcoded = MicrocodedEngine(g)
        takes = Signal()
        """A pipelined instruction is taken now."""
        front = Front(m, self, self.accept)
        in_flight = InFlight(m, "in_flight", g.address_bits, front.region["result"])
        microcoded_works = Signal()
        with m.If(microcoded.accept):
            m.d.sync += microcoded_works.eq(1)
        with m.Elif(microcoded.done):
            m.d.sync += microcoded_works.eq(0)

        follows, stands_in_the_way = self._dependences(m, front, in_flight, takes)
        readers = {name: TileReader(g, DEPTH) for name in "abc"}
        writer = TileWriter(g)
        room: list[Value] = [in_flight.has_room, ~microcoded_works, ~stands_in_the_way]
        for name, reader in readers.items():
            instantiate(m, f"reader_{name}", reader)
            tile = front.tile(name, follows[name], in_flight.newest)
            room.append(self._start(m, name, reader, takes & front.is_tile[name], tile, in_flight))
        instantiate(m, "writer", writer)
        room.append(self._start(m, "result", writer, takes, front.tile("result", Const(0, 1), in_flight.newest), None))
        m.submodules.beat_queue = beats = SyncFIFOBuffered(width=BEATS.size, depth=STARTS)
        m.d.comb += [
            beats.w_en.eq(takes),
            beats.w_data.eq(
                Cat(
                    *front.shape,
                    front.recipe,
                    *(front.is_tile[name] for name in "abc"),
                    front.is_iota,
                    *(front.scalar[name] for name in "abc"),
                    front.start,
                    *front.steps,
                )
            ),
        ]
        room.append(beats.w_rdy)
        m.d.comb += [
            takes.eq(front.is_ready & front.is_pipelined & Cat(room).all()),
            microcoded.valid.eq(front.is_ready & ~front.is_pipelined & ~in_flight.valid.any()),
            microcoded.words.eq(self.words),
            microcoded.values.eq(self.values),
            self.accept.eq(takes | microcoded.accept),
            self.done.eq(writer.is_written | microcoded.done),
            in_flight.adds.eq(takes),
            in_flight.removes.eq(writer.is_written),
            in_flight.writes.eq(writer.completes),
        ]
        self._lanes(m, beats, readers, writer)
        self._ports(m, readers, writer, microcoded)
        return m

    def _dependences(
        self, m: Module, front: Front, in_flight: InFlight, takes: Value
    ) -> tuple[dict[str, Signal], Signal]:
        """For each operand whether it follows the newest instruction vector by vector; and whether one of them meets
        what is to be written and does not."""
        newest_key = Signal(len(front.key("result")), name="newest_key")
        with m.If(takes):
            m.d.sync += newest_key.eq(front.key("result"))
        newest = wire(m, (Const(1, InFlight.SLOTS) << in_flight.newest)[0 : InFlight.SLOTS], "newest_entry")
        follows, waits = {}, []
        for name in "abc":
            met = wire(m, Mux(front.is_tile[name], in_flight.meets(front.region[name]), 0), f"{name}_meets")
            same = front.key(name) == newest_key
            follows[name] = wire(m, (met == newest) & same, f"{name}_follows")
            waits.append(met.any() & ~follows[name])
        return follows, wire(m, Cat(waits).any(), "stands_in_the_way")

    def _start(self, m: Module, name: str, unit: Any, push: Value, tile: Value, in_flight: InFlight | None) -> Value:
        """A queue of tiles in front of a reader or the writer, which starts the next as soon as it may. Gives whether
        there is room."""
        layout = tile_layout(self.geometry.address_bits)
        m.submodules[f"{name}_queue"] = queue = SyncFIFOBuffered(width=layout.size, depth=STARTS)
        next_tile = data.View(layout, queue.r_data)
        starts = wire(m, queue.r_rdy & unit.may_start, f"{name}_starts")
        m.d.comb += [
            queue.w_en.eq(push),
            queue.w_data.eq(tile),
            queue.r_en.eq(starts),
            unit.start.eq(starts),
            unit.size.eq(next_tile["size"]),
            unit.base.eq(next_tile.base),
            *(unit.shape[d].eq(next_tile.extents[d]) for d in range(4)),
            *(unit.strides[d].eq(next_tile.strides[d]) for d in range(4)),
        ]
        if in_flight is not None:
            m.d.comb += unit.is_flag.eq(next_tile.is_flag)
            follows, entry = Signal(name=f"{name}_follows_entry"), Signal.like(in_flight.tail, name=f"{name}_entry")
            asked = Signal(16, name=f"{name}_asked")
            with m.If(starts):
                m.d.sync += [follows.eq(next_tile.follows), entry.eq(next_tile.entry), asked.eq(0)]
            with m.Elif(unit.asks):
                m.d.sync += asked.eq(asked + 1)
            m.d.comb += unit.holds_back.eq(follows & ~in_flight.has_written(entry, asked))
        return queue.w_rdy

    def _lanes(self, m: Module, beats: Any, readers: dict[str, Any], writer: Any) -> None:
        """A vector a cycle into the lanes while operands are there, and its result to the writer."""
        g = self.geometry
        offered = data.View(BEATS, beats.r_data)
        m.submodules.pace = pace = Walker(g.lane_count, 64)
        recipe, is_tile, is_iota = Signal(RECIPE_BITS), Signal(3), Signal()
        scalars = [Signal(64, name=f"scalar_{name}") for name in "abc"]
        held = Signal(range(RESULTS + 1))
        """Vectors in the lanes and behind them."""
        there = [~is_tile[n] | readers[name].available.any() for n, name in enumerate("abc")]
        issues = wire(m, pace.valid & Cat(there).all() & (held != RESULTS), "issues")
        starts = wire(m, beats.r_rdy & (~pace.valid | (issues & pace.last)), "beats_start")
        m.d.comb += [
            beats.r_en.eq(starts),
            pace.start.eq(starts),
            pace.base.eq(offered.start),
            *(pace.shape[d].eq(offered.extents[d]) for d in range(4)),
            *(pace.strides[d].eq(offered.steps[d]) for d in range(4)),
            pace.next.eq(issues),
        ]
        with m.If(starts):
            m.d.sync += [recipe.eq(offered.recipe), is_tile.eq(offered.is_tile), is_iota.eq(offered.is_iota)]
            m.d.sync += [mine.eq(offered.scalars[n]) for n, mine in enumerate(scalars)]
        for n, name in enumerate("abc"):
            m.d.comb += readers[name].release.eq(issues & is_tile[n])
            m.d.comb += readers[name].slot.eq(issues & is_tile[n])

        recipes = [recipe]
        valid: list[Value] = [issues]
        for stage in range(1, LANE_CYCLES + 2):
            recipes.append(register(m, recipes[-1], Const(1, 1), f"recipe_{stage}"))
            later = Signal(name=f"is_valid_{stage}")
            m.d.sync += later.eq(valid[-1])
            valid.append(later)

        def told(stage: int, name: str) -> Value:
            return data.View(RECIPE, recipes[stage])[name]

        head, tail, ready = Signal(range(RESULTS)), Signal(range(RESULTS)), Signal(range(RESULTS + 1))
        pops = wire(m, writer.valid & writer.ready, "result_goes")
        m.d.comb += writer.valid.eq(ready.any())
        m.d.comb += writer.wanted.eq((1 << g.lane_count) - 1)
        m.d.sync += [
            held.eq(held + issues - pops),
            ready.eq(ready + valid[LANE_CYCLES + 1] - pops),
            head.eq(head + pops),
            tail.eq(tail + valid[LANE_CYCLES]),
        ]
        for n in range(g.lane_count):
            lane = PipelinedLane()
            instantiate(m, f"lane_{n}", lane)
            counted = wire(m, (pace.address + pace.step * n)[0:64], f"counted_{n}")
            for number, name in enumerate("abc"):
                operand = Mux(is_tile[number], readers[name].data[n], scalars[number])
                m.d.comb += getattr(lane, name).eq(Mux(is_iota, counted, operand) if name == "a" else operand)
            m.d.comb += [
                lane.widened.eq(told(WIDEN_STAGE, "widened")),
                *(
                    getattr(lane, part).eq(told(OPERATE_STAGE, part))
                    for part in ("operation", "width", "first", "second", "extra")
                ),
                lane.chosen_extra.eq(told(CHOOSE_STAGE, "extra")),
                lane.narrowed.eq(told(NARROW_STAGE, "narrowed")),
                lane.rounding.eq(told(NARROW_STAGE, "rounding")),
            ]
            m.submodules[f"results_{n}"] = memory = Memory(shape=64, depth=RESULTS, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(valid[LANE_CYCLES]),
                write.addr.eq(tail),
                write.data.eq(lane.result),
                read.addr.eq((head + pops)[0 : len(head)]),
                read.en.eq(1),
                writer.data[n].eq(read.data),
            ]

    def _ports(self, m: Module, readers: dict[str, Any], writer: Any, microcoded: Any) -> None:
        """The scratchpad's ports, which the microcoded engine uses when nobody else does."""
        for port, reader, other in zip(self.readers, readers.values(), microcoded.readers, strict=True):
            m.d.comb += [
                port.valid.eq(reader.port.valid | other.valid),
                port.row.eq(Mux(other.valid, other.row, reader.port.row)),
                reader.port.ready.eq(port.ready & ~other.valid),
                other.ready.eq(port.ready),
                reader.port.data.eq(port.data),
                other.data.eq(port.data),
            ]
        port, other = self.writer, microcoded.writer
        m.d.comb += [
            port.valid.eq(writer.port.valid | other.valid),
            port.row.eq(Mux(other.valid, other.row, writer.port.row)),
            port.data.eq(Mux(other.valid, other.data, writer.port.data)),
            port.mask.eq(Mux(other.valid, other.mask, writer.port.mask)),
            writer.port.ready.eq(port.ready & ~other.valid),
            other.ready.eq(port.ready),
            self.is_misplaced.eq(
                writer.misplaced | Cat(r.misplaced for r in readers.values()).any() | microcoded.is_misplaced
            ),
        ]
