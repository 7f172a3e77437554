"""Laws of the encoding and the assembly, for random instructions of every kind."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.isa import (
    AccessPattern,
    AtomicFunction,
    EncodingError,
    Function,
    Parameter,
    Program,
    RegisterValue,
    Rounding,
    assemble,
    decode,
    definitions,
    encode,
    show,
)
from tapeout.isa.fields import REGISTRY, WORD_BITS
from tapeout.numerics.dtypes import DType

registers = st.integers(0, 255)
quads = st.tuples(*[registers] * 4)
strides = st.one_of(st.integers(-(2**22), 2**22 - 1), st.integers(-4, 4))
patterns = st.builds(AccessPattern, st.integers(0, 2**27 - 1), st.tuples(*[strides] * 4), registers)
scalars = st.builds(RegisterValue, registers)

VALUES_OF_KIND = {
    "register": lambda field: registers,
    "registers": lambda field: quads,
    "semaphore": lambda field: st.integers(0, 63),
    "unsigned": lambda field: st.integers(0, 2**field.width - 1),
    "rotation": lambda field: st.integers(0, 2**field.width - 1).map(lambda units: 64 * units),
    "signed": lambda field: st.integers(-(2 ** (field.width - 1)), 2 ** (field.width - 1) - 1),
    "flag": lambda field: st.booleans(),
    "dtype": lambda field: st.sampled_from(list(DType)),
    "Function": lambda field: st.sampled_from(list(Function)),
    "AtomicFunction": lambda field: st.sampled_from(list(AtomicFunction)),
    "Rounding": lambda field: st.sampled_from(list(Rounding)),
    "shape": lambda field: st.tuples(*[st.integers(1, 65535)] * 4),
    "tile": lambda field: patterns,
    "written tile": lambda field: patterns,
    "tile or register": lambda field: st.one_of(patterns, scalars),
    "target": lambda field: st.just(0),
}


def instructions_of(kind):
    return st.builds(kind, **{field.name: VALUES_OF_KIND[field.kind](field) for field in kind.fields})


KINDS = sorted(REGISTRY.values(), key=lambda kind: kind.opcode)
any_instruction = st.one_of([instructions_of(kind) for kind in KINDS])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.mnemonic)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_instruction_survives_bits_and_text(kind, data):
    item = data.draw(instructions_of(kind))
    assert decode(encode([item])) == (item,)
    text = show(item)
    assert assemble(f"L0:\n{text} ; comment") == (item,)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.mnemonic)
def test_fields_lie_in_the_instruction_without_overlap(kind):
    position = 12
    for field, offset in zip(kind.fields, kind.offsets, strict=True):
        assert offset >= position
        if offset // WORD_BITS != (offset + field.width - 1) // WORD_BITS:
            assert offset % WORD_BITS == 0, f"{field.name} straddles a word"
        position = offset + field.width
    assert position <= kind.word_count * WORD_BITS < 16 * WORD_BITS


@st.composite
def programs(draw):
    items = draw(st.lists(any_instruction, min_size=1, max_size=12))
    last = len(items) - 1
    aimed = []
    for item in items:
        if item.target_index is not None:
            values = {field.name: getattr(item, field.name) for field in item.fields}
            item = type(item)(**{**values, "target": draw(st.integers(0, last))})
        aimed.append(item)
    return Program(
        name=draw(st.text(max_size=10)),
        chip="tiny",
        instructions=tuple(aimed),
        parameters=(Parameter("x_ptr", "*fp32"), Parameter("n", "i32")),
        scratchpad_bytes=draw(st.integers(0, 2**21)),
        order_free=draw(st.booleans()),
        lines=tuple(draw(st.lists(st.integers(-1, 0), max_size=len(aimed)))),
        locations=("kernel.py:7",),
        messages=("index out of range",),
    )


@settings(max_examples=60, deadline=None)
@given(programs())
def test_programs_survive_bits_and_text(program):
    assert Program.decode(program.encode()) == program
    assert assemble(program.text) == program.instructions


@settings(max_examples=60, deadline=None)
@given(programs(), st.data())
def test_any_damaged_bit_is_refused(program, data):
    binary = bytearray(program.encode())
    bit = data.draw(st.integers(0, 8 * len(binary) - 1))
    binary[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EncodingError):
        Program.decode(bytes(binary))


@settings(max_examples=30, deadline=None)
@given(programs(), st.data())
def test_half_a_program_is_refused(program, data):
    binary = program.encode()
    with pytest.raises(EncodingError):
        Program.decode(binary[: data.draw(st.integers(0, len(binary) - 1))])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), st.sampled_from(KINDS))
def test_random_words_are_refused_or_mean_exactly_themselves(words, kind):
    first = words[0] & ~0xFFF | kind.opcode | kind.word_count << 8
    data = struct.pack(f"<{len(words)}Q", first, *words[1:])
    try:
        items = decode(data)
    except EncodingError:
        return
    assert encode(items) == data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\xff" * 8, "word 0: opcode 0xff is not an instruction"),
        (bytes([1, 2, 0, 0, 0, 0, 0, 0]), "word 0: halt takes 1 words, not 2"),
        (bytes([1, 1, 0, 0, 0, 0, 0, 1]),
         "bits that no field uses are not zero, or a field holds what it must not"),
        (bytes([2, 1 | 5 << 4, 0, 0, 0, 0, 0, 0]), "jump: word 5 does not start an instruction"),
        (bytes(7), "7 bytes are not whole 64-bit words"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_bits_is_said(data, sentence):
    with pytest.raises(EncodingError) as caught:
        decode(data)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fly", "line 1: 'fly' is not an instruction"),
        ("\njump target=nowhere", "line 2: jump: target='nowhere' is not legal ('nowhere')"),
        ("wait s=1", "line 1: wait has no field 's'; it has semaphore"),
        ("iota shape=1x1x1x1", "line 1: iota lacks dtype, result"),
        ("load_immediate destination=r1 value=abc", "line 1: load_immediate: value='abc' is not legal "
         "(invalid literal for int() with base 0: 'abc')"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_text_is_said(text, sentence):
    with pytest.raises(EncodingError) as caught:
        assemble(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (definitions.LoadImmediate(destination=256, value=0),
         "load_immediate: destination=256: register 256 is outside 0..255"),
        (definitions.Rotate(register=1, step=1 << 27, limit=0),
         "rotate: step=134217728: value 134217728 is outside 0..134217727"),
        (definitions.Rotate(register=1, step=64, limit=100),
         "rotate: limit=100: value 100 is not a multiple of 64"),
        (definitions.Jump(target=3), "jump: target=3: list index out of range"),
        (definitions.Map1(function=Function.NEG, dtype=DType.F32, shape=(1, 1, 1, 0),
                          result=AccessPattern(0, (0, 0, 0, 1)), a=RegisterValue(0)),
         "map1: shape=(1, 1, 1, 0): extent 0 is outside 1..65535"),
        (definitions.Map1(function=Function.NEG, dtype=DType.F32, shape=(1, 1, 1, 1),
                          result=RegisterValue(3), a=RegisterValue(0)),
         "map1: result=RegisterValue(register=3): result: a register value is not allowed here"),
    ],
)  # fmt: skip
def test_what_cannot_be_encoded_is_said(item, sentence):
    with pytest.raises(EncodingError) as caught:
        encode([item])
    assert str(caught.value) == sentence
