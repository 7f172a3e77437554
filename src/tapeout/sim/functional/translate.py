"""A Program as the text of one LLVM module, whose entry runs all programs a host thread is dealt.

Instructions run in program order, which is one of the orders their semaphores allow; semaphores themselves need no
code. Vector instructions are collected into groups (`vector`); DMA, matrix products and gathers are calls of the native
runtime (`abi`).
"""

from tapeout.errors import InternalError
from tapeout.isa import AccessPattern, Instruction, Program, RegisterValue
from tapeout.isa import definitions as isa
from tapeout.isa.fields import Unit
from tapeout.numerics import functions
from tapeout.numerics.builder import KIND_OF_DTYPE, Kind
from tapeout.numerics.dtypes import DType
from tapeout.sim.functional import abi
from tapeout.sim.functional.analysis import Region, basic_blocks, operands, region_of, register_ranges, written_register
from tapeout.sim.functional.builder import LlvmBuilder, Text, Value
from tapeout.sim.functional.machine import ENTRY
from tapeout.sim.functional.operands import operand_dtype
from tapeout.sim.functional.vector import Access, Group, Scalar, Step, reduction

PARTIALS_BYTES = 32 * 16 * 8
UNITS = (Unit.SEQUENCER, Unit.LOAD, Unit.STORE, Unit.MATRIX, Unit.VECTOR)


def translate(program: Program) -> str:
    """LLVM IR of a program."""
    return _Translator(program).module()


class _Translator:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.text = Text()
        self.ranges = register_ranges(program)
        self.constants: list[str] = []
        self.known: dict[int, str] = {}
        self.versions: dict[int, int] = {}
        self.group: Group | None = None
        self.slots = 0

    def module(self) -> str:
        text = self.text
        blocks = basic_blocks(self.program)
        for block in blocks:
            self._block(block.start, block.end)
        if not self.program.instructions or not self._ends(self.program.instructions[-1]):
            text.label(f"b{len(self.program.instructions)}")
            text.add("br label %leave")
        prologue = self._prologue()
        epilogue = self._epilogue()
        lines = [
            *self.constants,
            *sorted(text.declarations),
            f"define void @{ENTRY}(ptr noalias %context) #0 {{",
            *prologue,
            *text.lines,
            *epilogue,
            "}",
            'attributes #0 = { nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512" }',
        ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _ends(item: Instruction) -> bool:
        return isinstance(item, isa.Halt | isa.Jump | isa.Trap)

    def _prologue(self) -> list[str]:
        used = sorted({written_register(item) for item in self.program.instructions} - {0})
        lines = ["entry:"]
        for name in ("scratchpad", "workspace", "arguments", *(f"call_{f}" for f in abi.FUNCTIONS)):
            lines.append(f"%{name}.at = getelementptr i8, ptr %context, i64 {abi.offset_of('Context', name)}")
            lines.append(f"%{name} = load ptr, ptr %{name}.at")
        lines.append(f"%values = alloca [{abi.size_of('BlockValues') // 8} x i64], align 64")
        lines.append(f"%partials = alloca [{PARTIALS_BYTES} x i8], align 64")
        lines += [f"%slot{i} = alloca i64" for i in range(self.slots)]
        for register in used:
            lines += [f"%r{register} = alloca i64", f"store i64 0, ptr %r{register}"]
        for name in abi.COUNTERS:
            lines += [f"%count.{name} = alloca i64", f"store i64 0, ptr %count.{name}"]
        lines.append("br label %b0")
        self.defined = set(used)
        return lines

    def _epilogue(self) -> list[str]:
        lines = ["leave:"]
        for name in abi.COUNTERS:
            lines += [
                f"%{name}.to = getelementptr i8, ptr %context, i64 {abi.offset_of('Context', name)}",
                f"%{name}.old = load i64, ptr %{name}.to",
                f"%{name}.here = load i64, ptr %count.{name}",
                f"%{name}.new = add i64 %{name}.old, %{name}.here",
                f"store i64 %{name}.new, ptr %{name}.to",
            ]
        return [*lines, "ret void"]

    # ------------------------------------------------------------------------------------- registers

    def _get(self, register: int) -> str:
        """A register's value, as an i64."""
        if register == 0 or register not in self._written:
            return "0"
        if register not in self.known:
            self.known[register] = self.text.let(f"load i64, ptr %r{register}")
        return self.known[register]

    @property
    def _written(self) -> set[int]:
        if not hasattr(self, "_written_registers"):
            self._written_registers = {written_register(item) for item in self.program.instructions} - {0}
        return self._written_registers

    def _set(self, register: int, value: str) -> None:
        if register == 0:
            return
        self.text.add(f"store i64 {value}, ptr %r{register}")
        self.known[register] = value
        self._version += 1
        self.versions[register] = self._version

    _version = 0

    # ---------------------------------------------------------------------------------------- blocks

    def _block(self, start: int, end: int) -> None:
        text = self.text
        text.label(f"b{start}")
        self.known = {}
        self._version += 1
        self.versions = {}
        self._block_version = self._version
        items = self.program.instructions[start:end]
        for unit in UNITS:
            count = sum(item.unit is unit for item in items)
            if count:
                self._count(unit.value, str(count))
        ended = False
        for index in range(start, end):
            ended = self._instruction(index, self.program.instructions[index])
        self._flush()
        if not ended:
            text.add(f"br label %b{end}")

    def _count(self, name: str, amount: str) -> None:
        old = self.text.let(f"load i64, ptr %count.{name}")
        self.text.add(f"store i64 {self.text.let(f'add i64 {old}, {amount}')}, ptr %count.{name}")

    def _flush(self) -> None:
        if self.group is not None:
            group, self.group = self.group, None
            group.emit()

    def _instruction(self, index: int, item: Instruction) -> bool:
        """Write one instruction; whether it ended the block."""
        text = self.text
        match item:
            case isa.Halt():
                self._flush()
                text.add("br label %leave")
                return True
            case isa.Jump():
                self._flush()
                text.add(f"br label %b{item.target}")
                return True
            case isa.BranchNonzero() | isa.BranchZero():
                condition = self._get(item.condition)
                self._flush()
                zero = text.let(f"icmp eq i64 {condition}, 0")
                there, here = f"b{item.target}", f"b{index + 1}"
                if isinstance(item, isa.BranchNonzero):
                    there, here = here, there
                text.add(f"br i1 {zero}, label %{there}, label %{here}")
                return True
            case isa.Trap():
                self._flush()
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
                self._flush()
                self._scalar_load(item)
            case isa.ScalarStore():
                self._flush()
                address = self._address(item.address, self._get(item.offset))
                self._store_low_bits(self._get(item.a), item.dtype, address)
            case isa.Wait() | isa.Drain():
                pass
            case isa.LoadSync() | isa.StoreSync() | isa.MatrixSync() | isa.VectorSync():
                pass
            case isa.Load() | isa.Store():
                self._settle(item)
                self._block_dma(index, item)
            case isa.LoadIndexed() | isa.StoreIndexed():
                self._settle(item)
                self._indexed_dma(index, item)
            case isa.Atomic():
                self._settle(item)
                self._atomic(index, item)
            case isa.MatrixMultiply():
                self._settle(item)
                self._matrix(index, item)
            case isa.Gather():
                self._settle(item)
                self._gather(index, item)
            case isa.Reduce():
                self._settle(item)
                reduction(text, self._step(item))
            case isa.Map1() | isa.Map2() | isa.Map3() | isa.Convert() | isa.Iota():
                self._elementwise(item)
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
        extend = "zext" if unsigned or dtype is DType.I1 else "sext"
        return self.text.let(f"{extend} i{bits} {low} to i64")

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

    def _store_low_bits(self, value: str, dtype: DType, address: str) -> None:
        if dtype is DType.I1:
            low = self.text.let(f"trunc i64 {value} to i1")
            value = self.text.let(f"zext i1 {low} to i8")
        elif dtype.bits < 64:
            value = self.text.let(f"trunc i64 {value} to i{dtype.bits}")
        self.text.add(f"store i{dtype.bits} {value}, ptr {address}, align 1")

    # ------------------------------------------------------------------------------------------ tiles

    def _version_of(self, register: int) -> int:
        return self.versions.get(register, self._block_version) if register else 0

    def _region(self, item: Instruction, name: str, pattern: AccessPattern) -> Region:
        bytes_ = operand_dtype(item, name).size_bytes
        return region_of(pattern, item.shape, bytes_, self._version_of(pattern.register))  # type: ignore[attr-defined]

    def _settle(self, item: Instruction) -> None:
        """Write the open group first if this instruction must see or keep what it does."""
        if self.group is None:
            return
        for name, operand, written in operands(item):
            if isinstance(operand, AccessPattern) and self.group.conflicts(self._region(item, name, operand), written):
                self._flush()
                return

    def _step(self, item: Instruction) -> Step:
        resolved: dict[str, Access | Scalar] = {}
        for name, operand, _ in operands(item):
            dtype = operand_dtype(item, name)
            if isinstance(operand, RegisterValue):
                resolved[name] = Scalar(dtype, self._get(operand.register))
            else:
                strides = tuple(s * dtype.size_bytes for s in operand.strides)
                region = self._region(item, name, operand)
                resolved[name] = Access(dtype, operand.base, self._get(operand.register), strides, region)
        registers: tuple[str, ...] = ()
        if isinstance(item, isa.Iota):
            registers = (self._get(item.start), *(self._get(r) for r in item.steps))
        return Step(item, resolved, registers)

    def _elementwise(self, item: Instruction) -> None:
        step = self._step(item)
        if self.group is None or not self.group.add(step):
            self._flush()
            self.group = Group(self.text, self.ranges)
            if not self.group.add(step):
                raise InternalError(f"{item.mnemonic} writes over its own operand")

    # ------------------------------------------------------------------------------------ native calls

    def _constant(self, index: int, structure: str, words: list[int]) -> str:
        assert 8 * len(words) == abi.size_of(structure), structure
        name = f"@facts{index}"
        values = ", ".join(f"i64 {word}" for word in words)
        self.constants.append(f"{name} = private unnamed_addr constant [{len(words)} x i64] [{values}], align 64")
        return name

    def _pointer(self, item: Instruction, name: str) -> tuple[str, list[int]]:
        """Where an operand lies, and its strides in bytes. A register operand lies in a slot of its own."""
        operand, dtype = getattr(item, name), operand_dtype(item, name)
        if isinstance(operand, AccessPattern):
            address = self._address(operand.base, self._get(operand.register))
            return address, [s * dtype.size_bytes for s in operand.strides]
        slot = f"%slot{self.slots}"
        self.slots += 1
        self.text.add(f"store i64 {self._get(operand.register)}, ptr {slot}")
        return slot, [0, 0, 0, 0]

    def _mask(self, item: Instruction) -> tuple[str, list[int]]:
        if item.mask == RegisterValue(0):  # type: ignore[attr-defined]
            return "null", [0, 0, 0, 0]
        return self._pointer(item, "mask")

    def _values(self, item: Instruction) -> None:
        """Fill the structure of register values."""
        words = [self._get(item.base)]  # type: ignore[attr-defined]
        words += [self._get(r) for r in item.strides]  # type: ignore[attr-defined]
        words += [self._get(r) for r in item.low]  # type: ignore[attr-defined]
        words += [
            self._get(r) if r else str(extent)
            for r, extent in zip(item.high, item.shape, strict=True)  # type: ignore[attr-defined]
        ]
        words.append(self._get(getattr(item, "fill", 0)))
        for position, word in enumerate(words):
            address = self.text.let(f"getelementptr i64, ptr %values, i64 {position}")
            self.text.add(f"store i64 {word}, ptr {address}")

    def _moved(self, item: Instruction, bytes_moved: str) -> None:
        self._count("hbm_read_bytes" if item.unit is Unit.LOAD else "hbm_written_bytes", bytes_moved)

    def _block_dma(self, index: int, item: Instruction) -> None:
        tile, strides = self._pointer(item, "tile")
        facts = self._constant(index, "BlockFacts", [index, item.dtype.size_bytes, *item.shape, *strides])  # type: ignore[attr-defined]
        self._values(item)
        function = "load_block" if isinstance(item, isa.Load) else "store_block"
        self._moved(
            item, self.text.let(f"call i64 %call_{function}(ptr %context, ptr {facts}, ptr %values, ptr {tile})")
        )

    def _indexed_dma(self, index: int, item: Instruction) -> None:
        tile, tile_strides = self._pointer(item, "tile")
        picks, index_strides = self._index(item)
        mask, mask_strides = self._mask(item)
        words = [index, item.dtype.size_bytes, *item.shape, *tile_strides]  # type: ignore[attr-defined]
        words += [item.index_dtype.size_bytes, item.scale, *index_strides, *mask_strides]  # type: ignore[attr-defined]
        facts = self._constant(index, "IndexedFacts", [*words, *[0] * 8, 0, item.dtype.code])  # type: ignore[attr-defined]
        self._values(item)
        function = "load_indexed" if isinstance(item, isa.LoadIndexed) else "store_indexed"
        operands_ = f"ptr %context, ptr {facts}, ptr %values, ptr {tile}, ptr {picks}, ptr {mask}"
        self._moved(item, self.text.let(f"call i64 %call_{function}({operands_})"))

    def _index(self, item: Instruction) -> tuple[str, list[int]]:
        return self._pointer(item, "index")

    def _atomic(self, index: int, item: isa.Atomic) -> None:
        tile, tile_strides = self._pointer(item, "tile")
        other, other_strides = self._pointer(item, "other")
        picks, index_strides = self._index(item)
        mask, mask_strides = self._mask(item)
        previous, previous_strides = self._pointer(item, "previous")
        words = [index, item.dtype.size_bytes, *item.shape, *tile_strides, item.index_dtype.size_bytes, item.scale]
        words += [*index_strides, *mask_strides, *other_strides, *previous_strides, item.function.code, item.dtype.code]
        facts = self._constant(index, "IndexedFacts", words)
        operands_ = f"ptr %context, ptr {facts}, i64 {self._get(item.base)}, ptr {tile}, ptr {other}, ptr {picks}, "
        moved = self.text.let(f"call i64 %call_atomic({operands_}ptr {mask}, ptr {previous})")
        self._count("hbm_read_bytes", moved)
        self._count("hbm_written_bytes", moved)

    def _matrix(self, index: int, item: isa.MatrixMultiply) -> None:
        accumulator, accumulator_strides = self._pointer(item, "accumulator")
        lhs, lhs_strides = self._pointer(item, "lhs")
        rhs, rhs_strides = self._pointer(item, "rhs")
        words = [item.lhs_dtype.code, item.rhs_dtype.code, int(item.accumulate), *item.shape]
        facts = self._constant(index, "MatrixFacts", [*words, *accumulator_strides, *lhs_strides, *rhs_strides])
        self.text.add(f"call void %call_matrix_multiply(ptr {facts}, ptr {accumulator}, ptr {lhs}, ptr {rhs})")

    def _gather(self, index: int, item: isa.Gather) -> None:
        result, result_strides = self._pointer(item, "result")
        source, source_strides = self._pointer(item, "source")
        picks, index_strides = self._index(item)
        bytes_ = item.dtype.size_bytes
        words = [bytes_, item.index_dtype.size_bytes, item.stride * bytes_, *item.shape]
        facts = self._constant(index, "PickFacts", [*words, *result_strides, *source_strides, *index_strides])
        self.text.add(f"call void %call_pick(ptr {facts}, ptr {result}, ptr {source}, ptr {picks})")


