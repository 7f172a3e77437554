"""What is illegal on a chip is refused with a sentence that says what is allowed."""

# ruff: noqa: E501  (assembly lines)

import dataclasses

import pytest

from tapeout.chip import load
from tapeout.isa import Parameter, Program, assemble
from tapeout.isa.verify import IllegalProgram, verify
from tapeout.testing.random_programs import random_case

TINY, INFERENCE = load("tiny"), load("inference")


def program(text, **facts):
    facts = {"scratchpad_bytes": 256, **facts}
    return Program(name="test", chip="tiny", instructions=assemble(text), **facts)


@pytest.mark.parametrize("chip", [TINY, INFERENCE], ids=lambda chip: chip.name)
@pytest.mark.parametrize("seed", range(15))
def test_random_programs_are_legal(seed, chip):
    case = random_case(seed, chip)
    assert verify(case.program, chip) is case.program


PLACE = "unknown: instruction 0 "
WRONG = [
    ("program_id destination=r1 axis=3", "(program_id): axis 3 is not 0, 1 or 2"),
    ("wait", "(wait): semaphore 0 stands for none; wait needs one of the others"),
    ("scalar destination=r1 a=r2 function=exp2 dtype=f32",
     "(scalar): the scalar unit has no f32; use an integer type, or the vector unit"),
    ("scalar destination=r1 a=r2 function=select dtype=i32",
     "(scalar): select takes 3 operands; scalar functions take one or two"),
    ("scalar destination=r1 a=r2 b=r3 function=add dtype=i1",
     "(scalar): add is not defined on i1; it is on f32, bf16, f16, f64, i8, i16, i32, i64"),
    ("scalar_convert destination=r1 a=r2 dtype=bf16",
     "(scalar_convert): the scalar unit has no bf16; use an integer type"),
    ("argument destination=r1 index=1", "(argument): argument 1 is read; the program has 1 parameters"),
    ("map1 function=exp2 dtype=bf16 shape=1x1x1x4 result=@0x0{0,0,0,1} a=r0",
     "(map1): exp2 is not defined on bf16; it is on f32"),
    ("map1 function=add dtype=f32 shape=1x1x1x4 result=@0x0{0,0,0,1} a=r0", "(map1): add takes 2 operands: use map2"),
    ("reduce function=div dtype=f32 shape=1x1x1x4 result=@0x0{0,0,0,0} a=@0x20{0,0,0,1}",
     "(reduce): div is not a reduction; those are add, mul, minimum, maximum, min_number, max_number, min_s, max_s, "
     "min_u, max_u, and, or, xor"),
    ("reduce function=add dtype=f32 shape=1x1x1x4 result=@0x0{0,0,0,1} a=@0x20{0,0,0,1}",
     "(reduce): dimension 3 is reduced, so the result's stride there must be 0, not 1"),
    ("iota dtype=i1 shape=1x1x1x4 result=@0x0{0,0,0,1}", "(iota): iota is not defined on i1; it is on i8, i16, i32, i64"),
    ("gather dtype=f32 index_dtype=f32 stride=1 shape=1x1x1x4 result=@0x0{0,0,0,1} source=@0x40{0,0,0,0} index=@0x80{0,0,0,1}",
     "(gather): index_dtype=f32 is not one of i8, i16, i32, i64"),
    ("load_indexed dtype=f32 index_dtype=i8 scale=4 base=r1 shape=1x1x1x4 tile=@0x0{0,0,0,1} index=r0 mask=r0",
     "(load_indexed): index_dtype=i8 is not one of i32, i64"),
    ("atomic dtype=f32 index_dtype=i32 function=max_s scale=4 base=r1 shape=1x1x1x1 tile=r1 other=r0 index=r0 mask=r0 previous=@0x0{0,0,0,1}",
     "(atomic): atomic max_s is not defined on f32; it is on i1, i8, i16, i32, i64"),
    ("matrix_multiply lhs_dtype=bf16 rhs_dtype=f16 shape=1x2x2x2 accumulator=@0x0{0,2,1,0} lhs=@0x40{0,2,0,1} rhs=@0x80{0,0,1,2}",
     "(matrix_multiply): lhs_dtype=bf16 and rhs_dtype=f16: only the float8 types may be mixed"),
    ("matrix_multiply lhs_dtype=i32 rhs_dtype=i32 shape=1x2x2x2 accumulator=@0x0{0,2,1,0} lhs=@0x40{0,2,0,1} rhs=@0x80{0,0,1,2}",
     "(matrix_multiply): the matrix engine does not multiply i32; it does f32, bf16, f16, f8e4m3, f8e5m2, f64, i8"),
    ("matrix_multiply lhs_dtype=bf16 rhs_dtype=bf16 shape=1x2x2x2 accumulator=@0x0{0,2,1,0} lhs=@0x40{0,2,1,1} rhs=@0x80{0,0,1,2}",
     "(matrix_multiply): lhs does not vary along n, so its stride there must be 0, not 1"),
    ("map1 function=sqrt dtype=f64 shape=1x1x1x4 result=@0x0{0,0,0,1} a=r0",
     "(map1): tiny has no f64; a chip has it if vector.float64_rate is not 0"),
    ("map1 function=copy dtype=f32 shape=1x1x1x64 result=@0x4{0,0,0,1} a=r0",
     "(map1): result covers bytes 0x4 to 0x103, outside the 256 bytes the program declares"),
    ("map1 function=copy dtype=f32 shape=1x1x1x4 result=@0x8{0,0,0,-1} a=r0",
     "(map1): result covers bytes -0x4 to 0xb, outside the 256 bytes the program declares"),
    ("map1 function=copy dtype=f32 shape=1x1x1x4 result=@0x2{0,0,0,1} a=r0",
     "(map1): result begins at 0x2, not a multiple of the element's 4 bytes"),
    ("map1 function=copy dtype=f32 shape=1x1x3x4 result=@0x0{0,0,0,1} a=r0",
     "(map1): elements of result overlap each other; give every dimension a stride of its own"),
    ("map1 function=copy dtype=f32 shape=1x1x3x4 result=@0x0{0,0,3,1} a=r0",
     "(map1): elements of result overlap each other; give every dimension a stride of its own"),
    ("map1 function=copy dtype=f32 shape=1x1x1x4 result=@0x0+r5{0,0,0,1} a=@0x8+r5{0,0,0,1}",
     "(map1): result and a overlap without being the same tile"),
    ("scalar_load destination=r1 address=254 dtype=i32",
     "(scalar_load): address 0xfe is outside the 256 bytes the program declares"),
    ("rotate register=r1 step=64 limit=96", "(rotate): rotate: limit=96: value 96 is not a multiple of 64"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line.split()[0] for line, _ in WRONG])
def test_illegal_instructions_are_explained(line, sentence):
    with pytest.raises(IllegalProgram) as caught:
        verify(program(f"{line}\nhalt", parameters=(Parameter("n", "i32"),)), TINY)
    assert str(caught.value).splitlines()[1] == PLACE + sentence


def test_numbers_beyond_the_chips_registers_and_semaphores():
    core = dataclasses.replace(TINY.core, register_count=64, semaphore_count=8)
    small = dataclasses.replace(TINY, name="small", core=core)
    text = "map1 function=copy dtype=i8 shape=1x1x1x1 result=@0x0+r64{0,0,0,1} a=r70 wait_a=s8\nhalt"
    with pytest.raises(IllegalProgram) as caught:
        verify(program(text), small)
    assert caught.value.complaints == [
        "unknown: instruction 0 (map1): wait_a names s8; small has s1 to s7",
        "unknown: instruction 0 (map1): result names r64; small has r0 to r63",
        "unknown: instruction 0 (map1): a names r70; small has r0 to r63",
    ]


def test_matrix_types_the_chip_does_not_multiply():
    matrix = dataclasses.replace(TINY.core.matrix, float8_rate=0)
    chip = dataclasses.replace(TINY, core=dataclasses.replace(TINY.core, matrix=matrix))
    text = "matrix_multiply lhs_dtype=f8e4m3 rhs_dtype=f8e4m3 shape=1x2x2x2 accumulator=@0x0{0,2,1,0} lhs=@0x40{0,2,0,1} rhs=@0x80{0,0,1,2}\nhalt"
    with pytest.raises(IllegalProgram, match=r"does not multiply f8e4m3 \(matrix.float8_rate is 0\)"):
        verify(program(text), chip)


def test_whole_programs():
    with pytest.raises(IllegalProgram) as caught:
        verify(program("drain", scratchpad_bytes=1 << 21), TINY)
    assert str(caught.value) == (
        "program test is illegal:\n"
        "needs 2097152 bytes of scratchpad; a core of tiny has 131072\n"
        "the last instruction is not halt, jump or trap, so a core would run past the end"
    )


def test_long_lists_are_cut():
    with pytest.raises(IllegalProgram) as caught:
        verify(program("wait\n" * 12 + "halt"), TINY)
    assert len(caught.value.complaints) == 12
    assert str(caught.value).splitlines()[-1] == "... and 2 more"


def test_interleaved_tiles_do_not_overlap():
    text = "map1 function=copy dtype=f32 shape=1x1x4x4 result=@0x0{0,0,8,2} a=@0x4{0,0,8,2}\nhalt"
    verify(program(text), TINY)
