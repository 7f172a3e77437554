"""Machine code to a Program: control flow becomes branches, virtual registers real ones, places access patterns."""

from dataclasses import dataclass, replace

from tapeout.codegen.machine import Branch, FieldValue, Instr, Label, Loop, Node, Place, Register, walk
from tapeout.isa import definitions as isa
from tapeout.isa.fields import AccessPattern, Instruction, RegisterValue
from tapeout.numerics.dtypes import DType

SPILL_REGISTERS = 16


@dataclass
class _Flat:
    """A list of instructions and labels; and the extent of each loop, inner before outer."""

    items: list[Instr | Label]
    loops: list[tuple[Label, Label]]


def _flatten(nodes: list[Node], flat: _Flat) -> None:
    items = flat.items
    for node in nodes:
        if isinstance(node, Instr):
            items.append(node)
        elif isinstance(node, Loop):
            top, end = Label(), Label()
            items.append(top)
            _flatten(node.head, flat)
            items.append(Instr(isa.BranchZero, {"condition": node.condition, "target": end}))
            _flatten(node.body, flat)
            items.append(Instr(isa.Jump, {"target": top}))
            items.append(end)
            flat.loops.append((top, end))
        elif isinstance(node, Branch):
            other, end = Label(), Label()
            items.append(Instr(isa.BranchZero, {"condition": node.condition, "target": other}))
            _flatten(node.then, flat)
            if node.otherwise:
                items.append(Instr(isa.Jump, {"target": end}))
            items.append(other)
            _flatten(node.otherwise, flat)
            if node.otherwise:
                items.append(end)


def _place_constants(flat: _Flat, hoisted_count: int) -> None:
    """Loads the constants used most at the start, the others where they are used."""
    uses: dict[Register, int] = {}
    for item in flat.items:
        if isinstance(item, Instr):
            for register, _ in item.registers():
                if register.constant:
                    uses[register] = uses.get(register, 0) + 1
    hoisted = sorted(uses, key=lambda register: -uses[register])[:hoisted_count]
    chosen = set(hoisted)
    items: list[Instr | Label] = [_load(register, register.constant or 0) for register in hoisted]
    for item in flat.items:
        if isinstance(item, Instr):
            local: dict[Register, Register] = {}
            for register, _ in item.registers():
                if register.constant and register not in chosen and register not in local:
                    local[register] = Register()
                    items.append(_load(local[register], register.constant))
            if local:
                item.fields = {name: _substitute(value, local) for name, value in item.fields.items()}
        items.append(item)
    flat.items = items


def _load(register: Register, value: int) -> Instr:
    return Instr(isa.LoadImmediate, {"destination": register, "value": value})


def _substitute(value: FieldValue, mapping: dict[Register, Register]) -> FieldValue:
    if isinstance(value, Register):
        return mapping.get(value, value)
    if isinstance(value, tuple) and value and isinstance(value[0], Register):
        return tuple(mapping.get(item, item) for item in value if isinstance(item, Register))
    if isinstance(value, Place) and value.register in mapping:
        return replace(value, register=mapping[value.register])
    return value


def _assign_registers(
    flat: _Flat, dedicated: list[Register], register_count: int
) -> tuple[dict[Register, int], dict[Register, int]]:
    """Real registers for virtual ones (linear scan), and numbered spill slots for those that got none.
    Register 0 is zero; the topmost ones are dedicated, below them a few carry spilled values."""
    position: dict[Label, int] = {}
    first: dict[Register, int] = {}
    last: dict[Register, int] = {}
    for index, item in enumerate(flat.items):
        if isinstance(item, Label):
            position[item] = index
            continue
        for register, _ in item.registers():
            first.setdefault(register, index)
            last[register] = index
    loops = [(position[top], position[end]) for top, end in flat.loops]
    for register in first:
        for start, end in loops:
            if first[register] < start <= last[register] < end:
                last[register] = end
    assigned = {register: register_count - 1 - k for k, register in enumerate(dedicated)}
    limit = register_count - len(dedicated) - SPILL_REGISTERS
    free = list(range(limit - 1, 0, -1))
    active: list[tuple[int, Register]] = []
    spilled: dict[Register, int] = {}
    for register in sorted(first, key=lambda r: first[r]):
        if register.constant == 0 or register in assigned:
            assigned.setdefault(register, 0)
            continue
        for entry in [entry for entry in active if entry[0] < first[register]]:
            active.remove(entry)
            free.append(assigned[entry[1]])
        if not free:
            furthest = max(active, key=lambda entry: entry[0])
            if furthest[0] <= last[register]:
                spilled[register] = len(spilled)
                continue
            active.remove(furthest)
            free.append(assigned.pop(furthest[1]))
            spilled[furthest[1]] = len(spilled)
        assigned[register] = free.pop()
        active.append((last[register], register))
    return assigned, spilled


def _spill(flat: _Flat, spilled: dict[Register, int], assigned: dict[Register, int], base: int, top: int) -> None:
    """Rewrites instructions that use spilled registers: load before, store after, through the spill registers."""
    items: list[Instr | Label] = []
    for item in flat.items:
        if isinstance(item, Label):
            items.append(item)
            continue
        local: dict[Register, Register] = {}
        reads: set[Register] = set()
        writes: set[Register] = set()
        for register, written in item.registers():
            if register in spilled:
                if register not in local:
                    local[register] = Register()
                    assigned[local[register]] = top - len(local)
                (writes if written else reads).add(register)
        for register in reads:
            address = base + 8 * spilled[register]
            items.append(
                Instr(isa.ScalarLoad, {"destination": local[register], "address": address, "dtype": DType.I64})
            )
        if local:
            item.fields = {name: _substitute(value, local) for name, value in item.fields.items()}
        items.append(item)
        for register in writes:
            address = base + 8 * spilled[register]
            items.append(Instr(isa.ScalarStore, {"a": local[register], "address": address, "dtype": DType.I64}))
    flat.items = items


def emit(code: list[Node], scratchpad_bytes: int, register_count: int) -> tuple[list[Instruction], list[str], int]:
    """Instructions, the source location of each, and the bytes of scratchpad used (spilled registers included)."""
    rotations = _rotations(code)
    flat = _Flat([_load(register, 0) for register in rotations], [])
    _flatten([*code, Instr(isa.Halt, {})], flat)
    _place_constants(flat, register_count // 2)
    assigned, spilled = _assign_registers(flat, rotations, register_count)
    if spilled:
        top = register_count - len(rotations)
        _spill(flat, spilled, assigned, scratchpad_bytes, top)
        scratchpad_bytes += -(-8 * len(spilled) // 64) * 64
    instrs: list[Instr] = []
    for item in flat.items:
        if isinstance(item, Label):
            item.index = len(instrs)
        else:
            instrs.append(item)
    return [_encode(item, assigned) for item in instrs], [item.location for item in instrs], scratchpad_bytes


def _rotations(nodes: list[Node]) -> list[Register]:
    return [node.offset for node in walk(nodes) if isinstance(node, Loop) and node.offset is not None]


def _encode(item: Instr, assigned: dict[Register, int]) -> Instruction:
    values: dict[str, object] = dict(item.semaphores())
    for spec in item.kind.fields:
        value = item.fields.get(spec.name)
        if value is None:
            continue
        if isinstance(value, Register):
            number = assigned[value]
            values[spec.name] = RegisterValue(number) if spec.is_operand else number
        elif isinstance(value, tuple):
            values[spec.name] = tuple(assigned[each] if isinstance(each, Register) else each for each in value)
        elif isinstance(value, Label):
            values[spec.name] = value.index
        elif isinstance(value, Place):
            buffer = value.buffer
            rotation = buffer.rotation
            offset = assigned[rotation.offset] if rotation is not None and rotation.offset is not None else 0
            if value.register is not None:
                offset = assigned[value.register]
            address = buffer.address + value.offset
            if spec.is_operand:
                values[spec.name] = AccessPattern(address, value.strides, offset)  # type: ignore[arg-type]
            else:
                values["offset"], values[spec.name] = offset, address
        else:
            values[spec.name] = value
    return item.kind(**values)
