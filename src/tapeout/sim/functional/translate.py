"""A Program as the text of one LLVM module, whose entry runs all programs a host thread is dealt.

Instructions run in program order, which is one of the orders their semaphores allow; semaphores themselves need no
code. Scalar instructions are written as they come; tile instructions are collected into runs, arranged (`schedule`) and
written as loops (`nest`) or calls of the native runtime (`abi`).
"""

from typing import Any

import numpy as np

from tapeout.errors import InternalError
from tapeout.host.features import host_features
from tapeout.isa import AccessPattern, Instruction, Program, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit, operand_dtype, operands, register_places, tiles, written_register
from tapeout.numerics import functions
from tapeout.numerics.analogue import AnalogueProduct
from tapeout.numerics.builder import KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import DType
from tapeout.sim.functional import abi, schedule
from tapeout.sim.functional.analysis import (
    Block,
    WaitingLoop,
    basic_blocks,
    region_of,
    register_ranges,
    waiting_loops,
)
from tapeout.sim.functional.builder import LlvmBuilder, Text, Value
from tapeout.sim.functional.checks import Checks, check_facts, check_values
from tapeout.sim.functional.liveness import Liveness
from tapeout.sim.functional.machine import ENTRY
from tapeout.sim.functional.nest import emit_group, emit_reduction
from tapeout.sim.functional.node import Node
from tapeout.sim.functional.schedule import OperandView, Scheduler
from tapeout.sim.functional.vector import Access, Scalar, Step

PARTIALS_BYTES = 32 * 16 * 8
"""Room for the partial results of a reduction down columns: 32 vectors of at most 16 elements of 8 bytes."""

HASH_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)

ENDS_RUN = (
    isa.Halt,
    isa.Jump,
    isa.BranchNonzero,
    isa.BranchZero,
    isa.Trap,
    isa.ScalarLoad,
    isa.ScalarStore,
)
UNITS = (Unit.SEQUENCER, Unit.LOAD, Unit.STORE, Unit.MATRIX, Unit.VECTOR)


def translate(program: Program, checks: Checks | None = None, analogue: AnalogueProduct | None = None) -> str:
    """LLVM IR of a program. With checks, every instruction that touches a tile is written by itself, and the sanitizer
    sees it first. `analogue`: how the chip's matrix engine computes if it is no exact one."""
    return _Translator(program, checks, analogue).module()


class _Translator:
    def __init__(self, program: Program, checks: Checks | None, analogue: AnalogueProduct | None) -> None:
        self.program = program
        self.analogue = analogue
        self.checks = checks
        self.host = host_features()
        self.text = Text(self.host)
        self.written_registers = {written_register(item) for item in program.instructions} - {0}
        self.ranges = register_ranges(program)
        self.blocks = basic_blocks(program)
        self.waiting_loops = waiting_loops(program)
        self.liveness = Liveness(program, self.blocks, self.ranges)
        self.scheduler = Scheduler(self.liveness)
        self.constants: list[str] = []
        self.allocations: list[str] = []
        if checks:
            self._allocate("%checked", "CheckValues")
        self.known: dict[int, str] = {}
        self.version = 0
        self.versions: dict[int, int] = {}
        self.run: list[Node] = []
        self.run_registers: set[int] = set()

    def module(self) -> str:
        text = self.text
        for block in self.blocks:
            self._block(block)
        if not self.program.instructions or not self._ends(self.program.instructions[-1]):
            text.label(f"b{len(self.program.instructions)}")
            text.add("br label %leave")
        prologue = self._prologue()
        bits = 8 * self.host.vector_bytes
        lines = [
            *self.constants,
            *sorted(text.declarations),
            f"define void @{ENTRY}(ptr noalias %context) #0 {{",
            *prologue,
            *text.lines,
            "leave:",
            "ret void",
            "}",
            f'attributes #0 = {{ nounwind "min-legal-vector-width"="{bits}" "prefer-vector-width"="{bits}" }}',
        ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _ends(item: Instruction) -> bool:
        return isinstance(item, isa.Halt | isa.Jump | isa.Trap)

    def _prologue(self) -> list[str]:
        lines = ["entry:"]
        for name in ("scratchpad", "workspace", "arguments", *(f"call_{f}" for f in abi.FUNCTIONS)):
            lines.append(f"%{name}.at = getelementptr i8, ptr %context, i64 {abi.offset_of('Context', name)}")
            lines.append(f"%{name} = load ptr, ptr %{name}.at")
        lines.append(f"%partials = alloca [{PARTIALS_BYTES} x i8], align 64")
        lines += self.allocations
        for register in sorted(self.written_registers):
            lines += [f"%r{register} = alloca i64", f"store i64 0, ptr %r{register}"]
        for name in abi.COUNTERS:
            lines.append(f"%count.{name} = getelementptr i8, ptr %context, i64 {abi.offset_of('Context', name)}")
        lines.append("br label %b0")
        return lines

    # ------------------------------------------------------------------------------------- registers

    def _get(self, register: int) -> str:
        """A register's value, as an i64."""
        if register not in self.written_registers:
            return "0"
        if register not in self.known:
            self.known[register] = self.text.let(f"load i64, ptr %r{register}")
        return self.known[register]

    def _set(self, register: int, value: str) -> None:
        if register == 0:
            return
        self.text.add(f"store i64 {value}, ptr %r{register}")
        self.known[register] = value
        self.version += 1
        self.versions[register] = self.version

    # ---------------------------------------------------------------------------------------- blocks

    def _block(self, block: Block) -> None:
        self.text.label(f"b{block.start}")
        self.known = {}
        self.version += 1
        self.versions = {}
        self.first_version = self.version
        self.live = self.liveness.states(block)
        items = self.program.instructions[block.start : block.end]
        for unit in UNITS:
            count = sum(item.unit is unit for item in items)
            if count:
                self._count(unit.value, str(count))
        ended = False
        for index in range(block.start, block.end):
            item = self.program.instructions[index]
            if isinstance(item, isa.BranchNonzero | isa.BranchZero):
                self._get(item.condition)
            if self._ends_run(item):
                self._flush(index)
            if index in self.waiting_loops:
                self._turn(self.waiting_loops[index])
            ended = self._instruction(index, item)
        if not ended:
            self._flush(block.end)
            self.text.add(f"br label %b{block.end}")

    def _ends_run(self, item: Instruction) -> bool:
        """Return whether what was collected must be written before this instruction."""
        if isinstance(item, ENDS_RUN):
            return True
        return written_register(item) in self.run_registers

    def _flush(self, index: int) -> None:
        """Arrange and write the collected run, which ends before the instruction at `index`."""
        if not self.run:
            return
        run, self.run, self.run_registers = self.run, [], set()
        for unit in self.scheduler.arrange(run, self.live[index]):
            self._unit(unit)

    def _turn(self, loop: WaitingLoop) -> None:
        """Tell the runtime that a loop which may wait for other programs starts its next turn, and in which state: what
        it carries in registers, and scalars it carries in the scratchpad."""
        text, state, whole = self.text, "0", True
        live = self.liveness.entry[loop.start]
        carried = [self._get(register) for register in loop.registers]
        for _, written in self.liveness.regions[loop.start : loop.end]:
            for region in written:
                if not self.liveness.is_live(region, live):
                    continue
                bits = 8 * (region.end - region.start)
                if region.register or bits not in (8, 16, 32, 64):
                    whole = False
                    continue
                value = text.let(f"load i{bits}, ptr {self._address(region.start, '0')}, align 1")
                carried.append(value if bits == 64 else text.let(f"zext i{bits} {value} to i64"))
        for value in carried:
            state = text.let(f"mul i64 {text.let(f'xor i64 {state}, {value}')}, {HASH_FACTOR}")
        facts = f"i64 {loop.start}, i64 {state}, i64 {int(whole)}, i64 {int(loop.has_atomics)}"
        text.add(f"call void %call_turn(ptr %context, {facts})")

    def _examine(self, index: int, item: Instruction) -> str:
        """Show the sanitizer an instruction that is about to run. Gives the arguments it was called with."""
        if not self.checks:
            return ""
        facts = self._constant(index, "CheckFacts", check_facts(index, item, self.checks), "check")
        values = "%checked"
        for position, (register, constant) in enumerate(check_values(item)):
            address = self.text.let(f"getelementptr i64, ptr {values}, i64 {position}")
            word = self._get(register) if register else constant
            # Volatile so that the code generator does not look for stores to merge.
            self.text.add(f"store volatile i64 {word}, ptr {address}")
        arguments = f"ptr %context, ptr {facts}, ptr {values}"
        self.text.add(f"call void %call_examine({arguments})")
        return arguments

    def _count(self, name: str, amount: str) -> None:
        # In memory: as a value it would be a sum of all that moved so far, and LLVM would look at all of it each time.
        old = self.text.let(f"load i64, ptr %count.{name}")
        self.text.add(f"store i64 {self.text.let(f'add i64 {old}, {amount}')}, ptr %count.{name}")

    def _instruction(self, index: int, item: Instruction) -> bool:
        """Write one instruction; whether it ended the block."""
        text = self.text
        match item:
            case isa.Halt():
                text.add("br label %leave")
                return True
            case isa.Jump():
                text.add(f"br label %b{item.target}")
                return True
            case isa.BranchNonzero() | isa.BranchZero():
                condition = self._get(item.condition)
                zero = text.let(f"icmp eq i64 {condition}, 0")
                there, here = f"b{item.target}", f"b{index + 1}"
                if isinstance(item, isa.BranchNonzero):
                    there, here = here, there
                text.add(f"br i1 {zero}, label %{there}, label %{here}")
                return True
            case isa.Trap():
                text.add(f"call void %call_trap(ptr %context, i64 {item.code})")
                text.add("unreachable")
                return True
            case isa.NextProgram():
                self._set(item.destination, text.let("call i64 %call_next_program(ptr %context)"))
            case isa.ProgramId():
                self._set(item.destination, self._context_word("program", item.axis))
            case isa.GridSize():
                self._set(item.destination, self._context_word("grid", item.axis))
            case isa.Argument():
                address = text.let(f"getelementptr i64, ptr %arguments, i64 {item.index}")
                self._set(item.destination, text.let(f"load i64, ptr {address}"))
            case isa.Workspace():
                self._set(item.destination, text.let("ptrtoint ptr %workspace to i64"))
            case isa.LoadImmediate():
                self._set(item.destination, str(item.value))
            case isa.Scalar():
                self._scalar(item)
            case isa.ScalarSelect():
                condition, a, b = self._get(item.condition), self._get(item.a), self._get(item.b)
                chosen = text.let(f"icmp ne i64 {condition}, 0")
                self._set(item.destination, text.let(f"select i1 {chosen}, i64 {a}, i64 {b}"))
            case isa.ScalarConvert():
                self._set(item.destination, self._extended(self._get(item.a), item.dtype, item.unsigned))
            case isa.Rotate():
                total = text.let(f"add i64 {self._get(item.register)}, {item.step}")
                beyond = text.let(f"icmp sge i64 {total}, {item.limit}")
                self._set(item.register, text.let(f"select i1 {beyond}, i64 0, i64 {total}"))
            case isa.ScalarLoad():
                self._examine(index, item)
                self._scalar_load(item)
            case isa.ScalarStore():
                self._examine(index, item)
                address = self._address(item.address, self._get(item.offset))
                self._store_low_bits(self._get(item.a), item.dtype, address)
            case isa.Wait() | isa.Drain() | isa.Sync():
                pass
            case _ if isinstance(item, isa.Tiled):
                arguments = self._examine(index, item)
                self.run.append(self._node(index, item))
                if self.checks:
                    self._flush(index + 1)
                    if self.checks.values:
                        text.add(f"call void %call_inspect({arguments})")
            case _:
                raise InternalError(f"the functional simulator does not know {item.mnemonic}")
        return False

    # ---------------------------------------------------------------------------------------- scalars

    def _context_word(self, name: str, index: int) -> str:
        if index > 2:
            return "0"
        address = self.text.let(f"getelementptr i8, ptr %context, i64 {abi.offset_of('Context', name, index)}")
        return self.text.let(f"load i64, ptr {address}")

    def _extended(self, value: str, dtype: DType, unsigned: bool) -> str:
        if dtype is DType.I64:
            return value
        bits = 1 if dtype is DType.I1 else dtype.bits
        low = self.text.let(f"trunc i64 {value} to i{bits}")
        return self.text.let(f"{'zext' if unsigned else 'sext'} i{bits} {low} to i64")

    def _scalar(self, item: isa.Scalar) -> None:
        text, dtype = self.text, item.dtype
        kind = KIND_OF_DTYPE[dtype]
        builder = LlvmBuilder(text, 1)
        operands_ = []
        for register in (item.a, item.b)[: item.function.arity]:
            value = self._get(register)
            if kind is not Kind.I64:
                value = text.let(f"trunc i64 {value} to i{kind.bits}")
            operands_.append(Value(kind, value))
        result = functions.MEANING[item.function](builder, dtype, *operands_)
        ref = result.ref
        if result.kind is not Kind.I64:
            extend = "zext" if result.kind is Kind.BOOL else "sext"
            ref = text.let(f"{extend} i{result.kind.bits} {ref} to i64")
        self._set(item.destination, ref)

    def _address(self, base: int, offset: str) -> str:
        total = str(base) if offset == "0" else self.text.let(f"add i64 {offset}, {base}")
        return self.text.let(f"getelementptr i8, ptr %scratchpad, i64 {total}")

    def _scalar_load(self, item: isa.ScalarLoad) -> None:
        text, bits = self.text, item.dtype.bits
        address = self._address(item.address, self._get(item.offset))
        value = text.let(f"load i{bits}, ptr {address}, align 1")
        if item.dtype is DType.I1:
            value = text.let(f"zext i1 {text.let(f'icmp ne i8 {value}, 0')} to i64")
        elif bits < 64:
            value = text.let(f"{'zext' if item.dtype.is_float else 'sext'} i{bits} {value} to i64")
        self._set(item.destination, value)
        noted = value if item.destination else "0"
        text.add(f"call void %call_note_scalar(ptr %context, i64 {noted})")

    def _store_low_bits(self, value: str, dtype: DType, address: str) -> None:
        if dtype is DType.I1:
            low = self.text.let(f"trunc i64 {value} to i1")
            value = self.text.let(f"zext i1 {low} to i8")
        elif dtype.bits < 64:
            value = self.text.let(f"trunc i64 {value} to i{dtype.bits}")
        self.text.add(f"store i{dtype.bits} {value}, ptr {address}, align 1")

    # ------------------------------------------------------------------------------------------ tiles

    def _version_of(self, register: int) -> int:
        return self.versions.get(register, self.first_version) if register else 0

    def _node(self, index: int, item: isa.Tiled) -> Node:
        """A tile instruction with its registers' values."""
        numbers = [place.register_of(item) for place in register_places(type(item))]
        values = {number: self._get(number) for number in numbers}
        regions = {}
        for use, tile in tiles(item):
            self.run_registers.add(tile.register)
            version = self._version_of(tile.register)
            regions[use.name] = region_of(tile, use.extents, use.dtype.size_bytes, version)
        self.run_registers.discard(0)
        read, written = schedule.node_regions(item, regions)
        step = self._step(item, values, regions) if isinstance(item, isa.Vector) else None
        return Node(index, item, values, read, written, step)

    def _step(self, item: isa.Vector, values: dict[int, str], regions: dict[str, Any]) -> Step:
        resolved: dict[str, Access | Scalar] = {}
        for use in operands(item):
            operand, dtype = use.operand, use.dtype
            if isinstance(operand, RegisterValue):
                resolved[use.name] = Scalar(dtype, values[operand.register])
            else:
                strides = tuple(s * dtype.size_bytes for s in operand.strides)
                resolved[use.name] = Access(dtype, operand.base, values[operand.register], strides, regions[use.name])
        steps: tuple[str, ...] = ()
        if isinstance(item, isa.Iota):
            steps = (values[item.start], *(values[r] for r in item.steps))
        return Step(item, resolved, steps)

    def _unit(self, unit: schedule.Unit) -> None:
        """Write one unit of an arranged run."""
        if unit.group is not None:
            self._group(unit)
            return
        node = unit.node
        assert node is not None
        item = node.item
        match item:
            case isa.Load() | isa.Store():
                self._block_dma(node, unit.is_view)
            case isa.LoadIndexed() | isa.StoreIndexed():
                self._indexed_dma(node, item)
            case isa.Atomic():
                self._atomic(node, item)
            case isa.MatrixMultiply():
                self._matrix(node, item, unit.operand_views)
            case isa.Gather():
                self._gather(node, item)
            case isa.Reduce():
                assert node.step is not None
                emit_reduction(self.text, node.step)
            case _:
                raise InternalError(f"the functional simulator does not know {item.mnemonic}")

    def _group(self, unit: schedule.Unit) -> None:
        """A loop nest, between the preparation and the completion of the blocks it writes."""
        text, group = self.text, unit.group
        assert group is not None
        placed: list[str] = []
        for step, store in unit.stores.items():
            view = self._view(store)
            facts, values = self._block_arguments(store)
            tile, _ = self._pointer(store, "tile")
            arguments = f"ptr %context, ptr {facts}, ptr {values}, ptr {tile}, ptr {view}"
            moved = text.let(f"call i64 %call_place_block({arguments})")
            self._count("hbm_written_bytes", moved)
            read = {block.name: group.view(*key, block) for key, block in group.views.items()}
            here = group.view(step, "result", group.places[step])
            assert here is not None
            for name, there in read.items():
                same = int(there is not None and there.mapping == here.mapping and group.row is None)
                text.add(f"call void %call_separate(ptr %context, ptr {name}, ptr {view}, i64 {same})")
            for earlier in placed:
                text.add(f"call void %call_separate(ptr %context, ptr {view}, ptr {earlier}, i64 2)")
            placed.append(view)
        emit_group(text, group)
        for view in placed:
            text.add(f"call void %call_finish_store(ptr %context, ptr {view})")

    # ------------------------------------------------------------------------------------ native calls

    def _allocate(self, name: str, structure: str) -> str:
        self.allocations.append(f"{name} = alloca [{abi.size_of(structure) // 8} x i64], align 64")
        return name

    def _constant(self, index: int, structure: str, words: list[int], prefix: str = "facts") -> str:
        assert 8 * len(words) == abi.size_of(structure), structure
        name = f"@{prefix}{index}"
        values = ", ".join(f"i64 {word}" for word in words)
        self.constants.append(f"{name} = private unnamed_addr constant [{len(words)} x i64] [{values}], align 64")
        return name

    def _pointer(self, node: Node, name: str) -> tuple[str, list[int]]:
        """Return where an operand lies, and its strides in bytes. A register operand lies in a slot of its own."""
        operand, dtype = getattr(node.item, name), operand_dtype(type(node.item), name, node.item)
        if isinstance(operand, AccessPattern):
            address = self._address(operand.base, node.values[operand.register])
            return address, [s * dtype.size_bytes for s in operand.strides]
        slot = f"%{name}{node.index}"
        self.allocations.append(f"{slot} = alloca i64")
        value = node.values[operand.register]
        if name == "mask":
            value = self.text.let(f"and i64 {value}, 1")
        self.text.add(f"store i64 {value}, ptr {slot}")
        return slot, [0, 0, 0, 0]

    def _mask(self, node: Node, item: isa.Indexed) -> tuple[str, list[int]]:
        if item.mask == RegisterValue(0):
            return "null", [0, 0, 0, 0]
        return self._pointer(node, "mask")

    def _values(self, node: Node, item: isa.Bounded) -> str:
        """The structure of register values, filled."""
        words = [node.values[r] for r in (item.base, *item.strides, *item.low)]
        words += [node.values[r] if r else str(extent) for r, extent in zip(item.high, item.shape, strict=True)]
        words.append(node.values[item.fill] if isinstance(item, isa.Load | isa.LoadIndexed) else "0")
        values = self._allocate(f"%values{node.index}", "BlockValues")
        for position, word in enumerate(words):
            address = self.text.let(f"getelementptr i64, ptr {values}, i64 {position}")
            # Volatile so that constants are not merged into one wide store, from which narrow loads would wait.
            self.text.add(f"store volatile i64 {word}, ptr {address}")
        return values

    def _view(self, node: Node) -> str:
        return self._allocate(f"%view{node.index}", "View")

    def _block_arguments(self, node: Node) -> tuple[str, str]:
        item = node.item
        assert isinstance(item, isa.BlockTransfer)
        tile = item.tile
        strides = [0] * 4 if isinstance(tile, RegisterValue) else [s * item.dtype.size_bytes for s in tile.strides]
        facts = self._constant(node.index, "BlockFacts", [node.index, item.dtype.size_bytes, *item.shape, *strides])
        return facts, self._values(node, item)

    def _block_dma(self, node: Node, is_view: bool) -> None:
        facts, values = self._block_arguments(node)
        tile, _ = self._pointer(node, "tile")
        arguments = f"ptr %context, ptr {facts}, ptr {values}, ptr {tile}"
        if is_view:
            function, arguments = "view_block", f"{arguments}, ptr {self._view(node)}"
        else:
            function = "load_block" if isinstance(node.item, isa.Load) else "store_block"
        self._moved(node, self.text.let(f"call i64 %call_{function}({arguments})"))

    def _moved(self, node: Node, bytes_moved: str) -> None:
        self._count("hbm_read_bytes" if node.item.unit is Unit.LOAD else "hbm_written_bytes", bytes_moved)

    def _indexed_dma(self, node: Node, item: isa.LoadIndexed | isa.StoreIndexed) -> None:
        tile, tile_strides = self._pointer(node, "tile")
        picks, index_strides = self._pointer(node, "index")
        mask, mask_strides = self._mask(node, item)
        words = [node.index, item.dtype.size_bytes, *item.shape, *tile_strides]
        words += [item.index_dtype.size_bytes, item.scale, *index_strides, *mask_strides]
        facts = self._constant(node.index, "IndexedFacts", [*words, *[0] * 8, 0, item.dtype.code, *_tiles_of(item)])
        function = "load_indexed" if isinstance(item, isa.LoadIndexed) else "store_indexed"
        arguments = f"ptr %context, ptr {facts}, ptr {self._values(node, item)}, ptr {tile}, ptr {picks}, ptr {mask}"
        self._moved(node, self.text.let(f"call i64 %call_{function}({arguments})"))

    def _atomic(self, node: Node, item: isa.Atomic) -> None:
        tile, tile_strides = self._pointer(node, "tile")
        other, other_strides = self._pointer(node, "other")
        picks, index_strides = self._pointer(node, "index")
        mask, mask_strides = self._mask(node, item)
        previous, previous_strides = self._pointer(node, "previous")
        words = [node.index, item.dtype.size_bytes, *item.shape, *tile_strides, item.index_dtype.size_bytes, item.scale]
        words += [*index_strides, *mask_strides, *other_strides, *previous_strides, item.function.code, item.dtype.code]
        words += _tiles_of(item)
        facts = self._constant(node.index, "IndexedFacts", words)
        arguments = f"ptr %context, ptr {facts}, i64 {node.values[item.base]}, ptr {tile}, ptr {other}, ptr {picks}, "
        moved = self.text.let(f"call i64 %call_atomic({arguments}ptr {mask}, ptr {previous})")
        self._count("hbm_read_bytes", moved)
        self._count("hbm_written_bytes", moved)

    def _matrix(self, node: Node, item: isa.MatrixMultiply, views: dict[str, OperandView]) -> None:
        accumulator, strides = self._pointer(node, "accumulator")
        words = [item.lhs_dtype.code, item.rhs_dtype.code, int(item.accumulate), *item.shape, *strides]
        words += self._analogue_words()
        facts = self._constant(node.index, "MatrixFacts", words)
        lhs, lhs_strides = self._matrix_operand(node, "lhs", views.get("lhs"))
        rhs, rhs_strides = self._matrix_operand(node, "rhs", views.get("rhs"))
        arguments = f"ptr {facts}, ptr {accumulator}, ptr {lhs}, ptr {lhs_strides}, ptr {rhs}, ptr {rhs_strides}"
        self.text.add(f"call void %call_matrix_multiply({arguments})")

    def _analogue_words(self) -> list[int]:
        spec = self.analogue
        if spec is None:
            return [0] * 6
        step, noise = (int(value.view(np.uint32)) for value in (spec.sum_step, spec.noise_steps))
        return [spec.operand_limit, spec.sum_limit, spec.sum_depth, step, noise, spec.noise_seed]

    def _matrix_operand(self, node: Node, name: str, seen: OperandView | None) -> tuple[str, str]:
        """An operand's address, and where its four strides lie."""
        text = self.text
        if seen is None:
            pointer, strides = self._pointer(node, name)
            words = ", ".join(f"i64 {s}" for s in strides)
            self.constants.append(f"@{name}{node.index} = private unnamed_addr constant [4 x i64] [{words}], align 64")
            return pointer, f"@{name}{node.index}"
        view = seen.block.name
        self.allocations.append(f"%{name}{node.index} = alloca [4 x i64], align 64")
        for position, (dimension, times) in enumerate(seen.mapping):
            stride = "0"
            if times:
                at = text.let(f"getelementptr i8, ptr {view}, i64 {abi.offset_of('View', 'stride', dimension)}")
                stride = text.let(f"mul i64 {text.let(f'load i64, ptr {at}')}, {times}")
            to = text.let(f"getelementptr i64, ptr %{name}{node.index}, i64 {position}")
            text.add(f"store i64 {stride}, ptr {to}")
        return text.let(f"load ptr, ptr {view}"), f"%{name}{node.index}"

    def _gather(self, node: Node, item: isa.Gather) -> None:
        result, result_strides = self._pointer(node, "result")
        source, source_strides = self._pointer(node, "source")
        picks, index_strides = self._pointer(node, "index")
        size = item.dtype.size_bytes
        words = [size, item.index_dtype.size_bytes, item.stride * size, *item.shape]
        facts = self._constant(node.index, "PickFacts", [*words, *result_strides, *source_strides, *index_strides])
        self.text.add(f"call void %call_pick(ptr {facts}, ptr {result}, ptr {source}, ptr {picks})")


def _tiles_of(item: isa.Indexed) -> list[int]:
    """Return which of index and mask are tiles."""
    return [int(isinstance(operand, AccessPattern)) for operand in (item.index, item.mask)]
