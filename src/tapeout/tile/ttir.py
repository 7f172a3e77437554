"""Reads Triton's IR (the text of a module after Triton's own passes) into the tile IR.

Takes the text with locations, as `str(module)` prints it. The reader knows the shape of the syntax (results, name,
operands, attributes, types, regions), not each operation, and asks for an operation's own rules only where its result
types do not stand in the text. What cannot be read is an UnsupportedError with the source line.
"""

import functools
import re
from typing import Any

from tapeout.errors import UnsupportedError
from tapeout.numerics.dtypes import DType, exact_bits
from tapeout.tile.ir import Block, Kernel, Operation, Region, Type, Value

_ELEMENTS = {
    "f32": DType.F32,
    "f16": DType.F16,
    "bf16": DType.BF16,
    "f64": DType.F64,
    "f8E4M3FN": DType.F8E4M3,
    "f8E5M2": DType.F8E5M2,
    "i1": DType.I1,
    "i8": DType.I8,
    "i16": DType.I16,
    "i32": DType.I32,
    "i64": DType.I64,
    "index": DType.I64,
}
_OPERAND = re.compile(r"%[\w$.\-]+(?:#\d+)?")
_OPERATION_NAME = re.compile(r'"?([a-z_]+\.[\w.]+)"?')
_LOC_DEFINITION = re.compile(r"^#(loc\d*) = loc\((.*)\)$")
_FILE_LINE = re.compile(r'"([^"]*)":(\d+):\d+')
_ATTRIBUTE = re.compile(r"([\w.]+)(?: = ((?:array<[^>]*>)|(?:\"[^\"]*\")|(?:[^,]*)))?(?:, |$)")
_SAME_TYPE_PREFIXES = ("arith.", "math.")


@functools.cache
def read_type(text: str) -> Type:
    """A type of Triton's IR, as `tensor<64x32x!tt.ptr<f16>>` or `f32`."""
    text = text.strip()
    if text.startswith("tensor<"):
        *extents, element = re.match(r"tensor<((?:\d+x)*)(.*)>$", text).groups()  # type: ignore[union-attr]
        inner = read_type(element)
        return inner.with_shape(tuple(int(e) for e in extents[0].split("x") if e))
    if text.startswith("!tt.ptr<"):
        return Type(DType.I64, (), read_type(text[8:-1].split(",")[0]).dtype)
    if text in _ELEMENTS:
        return Type(_ELEMENTS[text])
    raise UnsupportedError(f"type {text}", hint=f"the chip has {', '.join(_ELEMENTS)} and pointers to them")


def split_top(text: str, separator: str = ",") -> list[str]:
    """Splits at separators outside brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "<({[":
            depth += 1
        elif c in ">)}]" and text[i - 1 : i + 1] != "->":
            depth -= 1
        elif c == separator and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _read_types(text: str) -> list[Type]:
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return [read_type(t) for t in split_top(text)]


class _Locations:
    """The table of `#loc` lines; resolves to the innermost place in the kernel's own call chain: file:line."""

    def __init__(self, lines: list[str]) -> None:
        self.table = {m[1]: m[2] for line in lines if (m := _LOC_DEFINITION.match(line))}

    @functools.cache  # noqa: B019
    def resolve(self, text: str) -> str:
        if text.startswith("#"):
            return self.resolve(self.table.get(text[1:], ""))
        if text.startswith("callsite("):
            return self.resolve(text[9:-1].rsplit(" at ", 1)[1])
        if match := _FILE_LINE.search(text):
            return f"{match[1]}:{match[2]}"
        if match := re.search(r"#loc\d*", text):
            return self.resolve(match[0])
        return ""


def _cut_locations(line: str) -> tuple[str, str]:
    """The line without any `loc(...)`, and the content of the last one."""
    last = ""
    while (start := line.find(" loc(")) >= 0:
        depth, end = 0, start + 4
        while True:
            depth += {"(": 1, ")": -1}.get(line[end], 0)
            end += 1
            if depth == 0:
                break
        last = line[start + 5 : end - 1]
        line = line[:start] + line[end:]
    return line.rstrip(), last


def _cut_attributes(text: str) -> tuple[str, dict[str, Any]]:
    """The text without its `<{...}>` and `{...}` groups, and what they say."""
    attributes: dict[str, Any] = {}
    position = 0
    while (start := text.find("{", position)) >= 0:
        depth, end = 0, start
        while True:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if depth == 0:
                break
        attributes |= _read_attributes(text[start + 1 : end - 1])
        if text[start - 1 : start] == "<" and text[end : end + 1] == ">":
            start, end = start - 1, end + 1
        text = text[:start].rstrip() + text[end:]
    return text, attributes


def _read_attributes(text: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in split_top(text):
        key, _, value = part.partition(" = ")
        out[key.strip()] = _read_attribute(value)
    return out


def _unescaped(text: str) -> str:
    """A string attribute's content: `\\0A` is the byte 10, `\\"` and `\\\\` are themselves."""
    data = re.sub(
        r"\\([0-9A-F]{2})|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else m[2], text.encode().decode("latin-1")
    )
    return data.encode("latin-1").decode()


def _read_attribute(value: str) -> Any:
    if not value or value == "true":
        return True
    if value == "false":
        return False
    if value.startswith('"'):
        return value[1:-1]
    if value.startswith("array<"):
        _, _, items = value[6:-1].partition(":")
        return tuple(int(x) if x.strip().lstrip("-").isdigit() else x.strip() == "true" for x in items.split(",") if x)
    literal = value.split(" : ")[0]
    if re.fullmatch(r"-?\d+", literal):
        return int(literal)
    return value


def _read_constant(text: str, type: Type) -> int | list[int]:
    """A constant as bits (integers signed): one for all elements, or a list in row-major order."""
    if text.startswith("dense<"):
        text = text[6:-1]
    if text.startswith("["):
        return [_read_constant(part, type) for part in re.findall(r"[^\[\], ]+", text)]  # type: ignore[misc]
    if text.startswith('"0x'):
        data = bytes.fromhex(text[3:-1])
        size = type.dtype.size_bytes
        if type.dtype is DType.I1:
            return [data[i // 8] >> (i % 8) & 1 for i in range(type.size)]
        return [int.from_bytes(data[i : i + size], "little", signed=True) for i in range(0, len(data), size)]
    if text in ("true", "false"):
        return int(text == "true")
    if type.is_float:
        return int(text, 16) if text.startswith("0x") else exact_bits(float(text), type.dtype)
    return int(text)


def _terminated(region: Region) -> Region:
    """The region of a loop or branch with the empty `scf.yield` that the text leaves out."""
    operations = region.block.operations
    if not operations or operations[-1].name != "scf.yield":
        operations.append(Operation("scf.yield", [], []))
    return region


class _Reader:
    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        self.locations = _Locations(lines)
        self.lines = [line for line in (raw.strip() for raw in lines) if line and not line.startswith("#loc")]
        self.position = 0
        self.values: dict[str, Value] = {}

    def next_line(self) -> tuple[str, str]:
        line, location = _cut_locations(self.lines[self.position])
        self.position += 1
        return line.split("  //")[0].rstrip(), location

    def peek(self) -> str:
        return self.lines[self.position]

    def lookup(self, name: str) -> Value:
        return self.values[name]

    def define(self, name: str, type: Type, owner: Operation | None = None) -> Value:
        value = Value(type, owner, name.lstrip("%"))
        self.values[name] = value
        return value

    def read_module(self) -> Kernel:
        kernels: dict[str, Kernel] = {}
        public = ""
        while self.position < len(self.lines):
            line, _ = self.next_line()
            if match := re.match(r"tt\.func (public|private|)\s*@([^\s(]+)\((.*)\).*\{$", line):
                self.values = {}
                kernels[match[2].strip('"')] = self.read_function(match[2].strip('"'), line)
                if match[1] == "public":
                    public = match[2].strip('"')
        kernel = kernels.pop(public)
        kernel.functions = kernels
        return kernel

    def read_function(self, name: str, line: str) -> Kernel:
        start = line.index("(")
        depth, end = 0, start
        while True:
            depth += {"(": 1, ")": -1}.get(line[end], 0)
            end += 1
            if depth == 0:
                break
        arguments = []
        for part in split_top(line[start + 1 : end - 1]):
            argument, _, type_text = _cut_attributes(part)[0].partition(":")
            arguments.append(self.define(argument.strip(), read_type(type_text.strip())))
        return Kernel(name, self.read_region(arguments))

    def read_region(self, arguments: list[Value]) -> Region:
        """Operations up to the closing brace, which is left as the current line."""
        blocks = [Block(arguments)]
        while not self.peek().startswith("}"):
            line = self.peek()
            if line.startswith("^"):
                line, _ = self.next_line()
                label = re.match(r"\^(\w+)", line)[1]  # type: ignore[index]
                block_arguments = []
                if match := re.match(r"\^\w+\((.*)\):", line):
                    for part in split_top(match[1]):
                        argument, _, type_text = part.partition(":")
                        block_arguments.append(self.define(argument.strip(), read_type(type_text.strip())))
                if blocks[-1].operations or blocks[-1].arguments:
                    blocks.append(Block(block_arguments, label=label))
                else:
                    blocks[-1] = Block(block_arguments, label=label)
            else:
                blocks[-1].operations.append(self.read_operation())
        return Region(blocks)

    def read_operation(self) -> Operation:
        line, location_text = self.next_line()
        names: list[str] = []
        rest = line
        if match := re.match(r"((?:%[\w$.\-]+(?::\d+)?(?:, )?)+) = ", line):
            rest = line[match.end() :]
            names = match[1].split(", ")
        match = _OPERATION_NAME.match(rest)
        if match is None:
            raise UnsupportedError(f"the line `{line}` of Triton's IR")
        name, rest = match[1], rest[match.end() :].strip()
        operation = Operation(name, [], [], location=self.locations.resolve(location_text))
        if name in ("scf.for", "scf.if", "scf.while"):
            types = getattr(self, "read_" + name[4:])(operation, rest)
        elif rest.endswith("({"):
            types = self.read_generic(operation, rest)
        else:
            types = self.read_plain(operation, rest)
        if not operation.location:
            operation.location = self.locations.resolve(location_text)
        position = 0
        for text in names:
            base, _, count = text.partition(":")
            number = int(count or 1)
            for k in range(number):
                value = self.define(base if not count else f"{base}#{k}", types[position], operation)
                operation.results.append(value)
                if k == 0:
                    self.values[base] = value
                position += 1
        return operation

    def operands(self, text: str) -> list[Value]:
        return [self.lookup(o) for o in _OPERAND.findall(text)]

    def close(self, operation: Operation) -> str:
        """Reads the line that closes a region: its rest after the brace, attributes taken out."""
        line, location = self.next_line()
        operation.location = self.locations.resolve(location) or operation.location
        line, attributes = _cut_attributes(line[1:].strip())
        operation.attributes |= attributes
        return line

    def read_for(self, operation: Operation, rest: str) -> list[Type]:
        match = re.match(
            r"(unsigned )?(%\S+) = (%\S+) to (%\S+) step (%\S+)"
            r"\s*(?:iter_args\((.*?)\) -> \((.*)\))?\s*(?:: (\S+))? \{$",
            rest,
        )
        if match is None:
            raise UnsupportedError(f"loop scf.for {rest}", where=operation.location or None)
        unsigned, induction, low, high, step, carried, types_text, type_text = match.groups()
        operation.attributes["unsigned"] = bool(unsigned)
        operation.operands = [self.lookup(low), self.lookup(high), self.lookup(step)]
        types = _read_types(types_text) if types_text else []
        arguments = [self.define(induction, read_type(type_text) if type_text else Type(DType.I64))]
        for part, type in zip(split_top(carried or ""), types, strict=True):
            inner, _, outer = part.partition(" = ")
            operation.operands.append(self.lookup(outer))
            arguments.append(self.define(inner.strip(), type))
        operation.regions = [_terminated(self.read_region(arguments))]
        self.close(operation)
        return types

    def read_if(self, operation: Operation, rest: str) -> list[Type]:
        match = re.match(r"(%\S+)(?: -> \((.*)\))? \{$", rest)
        if match is None:
            raise UnsupportedError(f"branch scf.if {rest}", where=operation.location or None)
        operation.operands = [self.lookup(match[1])]
        operation.regions = [_terminated(self.read_region([]))]
        if self.peek().startswith("} else"):
            self.next_line()
            operation.regions.append(_terminated(self.read_region([])))
        self.close(operation)
        return _read_types(match[2]) if match[2] else []

    def read_while(self, operation: Operation, rest: str) -> list[Type]:
        match = re.match(r"(?:\((.*)\) )?: \((.*?)\) -> (.*) \{$", rest)
        if match is None:
            raise UnsupportedError(f"loop scf.while {rest}", where=operation.location or None)
        arguments = []
        for part, type in zip(split_top(match[1] or ""), _read_types(match[2]), strict=True):
            inner, _, outer = part.partition(" = ")
            operation.operands.append(self.lookup(outer))
            arguments.append(self.define(inner.strip(), type))
        before = self.read_region(arguments)
        self.next_line()
        after = self.read_region([])
        operation.regions = [before, after]
        self.close(operation)
        return _read_types(match[3])

    def read_generic(self, operation: Operation, rest: str) -> list[Type]:
        """`"tt.reduce"(%a, %b) <{axis = 1 : i32}> ({ ... }) : (types) -> types`"""
        head, operation.attributes = _cut_attributes(rest[:-2])
        operation.operands = self.operands(head)
        while True:
            operation.regions.append(self.read_region([]))
            line = self.close(operation)
            if not line.startswith(", {"):
                break
        return _read_types(line.split(" -> ", 1)[1])

    def read_plain(self, operation: Operation, rest: str) -> list[Type]:
        name = operation.name
        if name == "arith.constant":
            text, _, type_text = rest.rpartition(" : ")
            type = read_type(type_text if text else "i1")
            operation.attributes["value"] = _read_constant((text or rest).strip(), type)
            return [type]
        if name == "ub.poison":  # any value will do
            operation.name, operation.attributes["value"] = "arith.constant", 0
            return [read_type(rest.rpartition(":")[2])]
        if name in ("tt.assert", "tt.print") and (match := re.search(r'"((?:[^"\\]|\\.)*)"', rest)):
            operation.attributes["message"] = _unescaped(match[1])
            rest = rest[: match.start()] + rest[match.end() :]
        rest, attributes = _cut_attributes(rest)
        operation.attributes |= attributes
        if name == "tt.print":  # its operands stand behind the colon
            rest = rest.replace(":", "", 1)
        head, _, types_text = rest.partition(" : ")
        if name == "tt.call" and (match := re.match(r'@("[^"]*"|[^\s(]+)', rest)):
            operation.attributes["callee"] = match[1].strip('"')
            rest = rest[match.end() :]
        if name in ("cf.br", "cf.cond_br"):
            operation.attributes["targets"] = re.findall(r"\^(\w+)", rest)
            operation.operands = self.operands(rest.split("^")[0]) if name == "cf.cond_br" else []
            operation.attributes["forwarded"] = [
                self.operands(part.split(":")[0]) for part in re.findall(r"\^\w+(?:\((.*?)\))?", rest)
            ]
            return []
        operation.operands = self.operands(head)
        if name == "tt.dot_scaled":
            operation.attributes["scaled"] = tuple(" scale " in part for part in split_top(head)[:2])
        words = [w for w in re.split(r"[,\s()\[\]]+", _OPERAND.sub("", head)) if w]
        if words:
            operation.attributes["words"] = words
        if "=" in words:
            for i, word in enumerate(words):
                if word == "=" and 0 < i < len(words) - 1:
                    operation.attributes[words[i - 1]] = words[i + 1]
        return self.result_types(operation, types_text.strip())

    def result_types(self, operation: Operation, text: str) -> list[Type]:
        name = operation.name
        if not text or name in (
            "tt.store",
            "scf.yield",
            "tt.reduce.return",
            "tt.scan.return",
            "tt.return",
            "scf.condition",
        ):
            return []
        if name in ("tt.assert", "tt.print", "tt.descriptor_store"):
            return []
        if name == "tt.split":
            result = _read_types(text.split(" -> ", 1)[1])[0]
            return [result, result]
        if " -> " in text:
            return _read_types(text.split(" -> ", 1)[1])
        if " to " in text:
            return _read_types(text.split(" to ", 1)[1])
        types = _read_types(text)
        if name in ("arith.cmpi", "arith.cmpf"):
            return [Type(DType.I1, types[0].shape)]
        if name == "tt.load":
            pointee = types[0].pointee
            if pointee is None:
                raise UnsupportedError(
                    f"load through {text}", where=operation.location or None, hint="pointers are loaded through"
                )
            return [Type(pointee, types[0].shape)]
        if name == "tt.addptr":
            return [types[0]]
        if name == "tt.unsplat":
            return [types[0].with_shape(())]
        if name in ("arith.mulsi_extended", "arith.mului_extended"):
            return [types[0], types[0]]
        return [types[-1]]


def read_kernel(text: str) -> Kernel:
    """The kernel of a module of Triton's IR, with the functions it calls."""
    return _Reader(text).read_module()
