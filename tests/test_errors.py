"""What the reader sees: whole sentences."""

import pytest

from tapeout.chip import load
from tapeout.codegen.allocate import ScratchpadOverflow, allocate
from tapeout.codegen.machine import Buffer, Instr, Place
from tapeout.codegen.split_tiles import outgrows
from tapeout.errors import UnsupportedError
from tapeout.isa import definitions as isa
from tapeout.tile.ttir import read_type


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UnsupportedError("tl.dot"), "tl.dot is not supported"),
        (UnsupportedError("tl.dot", where="k.py:7"), "k.py:7: tl.dot is not supported"),
        (
            UnsupportedError("dot", dtype="i16", where="k.py:7 in kernel k", hint="the matrix engine takes f32"),
            "k.py:7 in kernel k: dot of i16 elements is not supported; the matrix engine takes f32",
        ),
        (
            outgrows(Instr(isa.Reduce, {"shape": (1, 1, 1, 9)}, "k.py:7"), "reduce", "a row is taken in parts of 32"),
            "k.py:7: reduce of shape 1x1x1x9 on a tile that outgrows the scratchpad is not supported; "
            "a row is taken in parts of 32",
        ),
    ],
)
def test_the_error_writes_the_sentence(error, sentence):
    assert str(error) == sentence


def test_a_type_that_the_chip_has_not():
    with pytest.raises(UnsupportedError) as error:
        read_type("tensor<4xi7>")
    assert str(error.value).startswith("type i7 is not supported; the chip has ")
    assert str(error.value).endswith(" and pointers to them")


def test_tiles_that_do_not_fit():
    tile = Place(Buffer(1 << 30), 0, (0, 0, 0, 1))
    with pytest.raises(ScratchpadOverflow) as error:
        allocate([Instr(isa.Iota, {"result": tile})], load("tiny").core.scratchpad.size_bytes)
    assert str(error.value) == (
        "a kernel whose tiles need 1073741824 bytes of scratchpad at one time is not supported; the core has 131072"
    )
