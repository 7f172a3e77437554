"""What the functional simulator decides before it writes code: iteration spaces, views, groups, dropped stores."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tapeout.chip import load
from tapeout.isa import Parameter, Program, assemble
from tapeout.sim.functional.translate import translate
from tapeout.sim.functional.vector import (
    NeedsCut,
    cuts_of,
    extents_of,
    join_cuts,
    map_onto_block,
    refine,
)

CHIP = load("inference")
SHAPES = st.tuples(*[st.sampled_from((1, 2, 3, 4, 6, 8))] * 4)
STRIDES = st.tuples(*[st.integers(-9, 9)] * 4)


def offsets(extents, strides):
    """Offset of every element, innermost dimension fastest."""
    places = itertools.product(*map(range, extents))
    return [sum(i * s for i, s in zip(place, strides, strict=True)) for place in places]


@given(SHAPES, SHAPES, STRIDES)
def test_a_finer_space_visits_the_same_elements(shape, other, strides):
    cuts = join_cuts(cuts_of(shape), cuts_of(other))
    if cuts is None:
        return
    assert {*cuts_of(shape), *cuts_of(other)} == {*cuts}
    assert offsets(extents_of(cuts), refine(strides, shape, cuts)) == offsets(shape, strides)


@st.composite
def reads_of_blocks(draw):
    """A block, the dense order of its tile, and a read of the tile that merges, broadcasts or splits dimensions."""
    block = draw(SHAPES)
    order = draw(st.permutations(range(4)))
    strides, reach = [0] * 4, 1
    for dimension in reversed(order):
        strides[dimension] = reach
        reach *= block[dimension]
    extents, steps = [], []
    for dimension in order:
        whole = block[dimension]
        part = draw(st.sampled_from([p for p in range(1, whole + 1) if whole % p == 0]))
        extents += [whole // part, part]
        steps += [strides[dimension] * part, strides[dimension]]
        if draw(st.booleans()):
            extents.append(draw(st.sampled_from((2, 3))))
            steps.append(0)
    if draw(st.booleans()):  # the whole tile as one dimension
        extents, steps = [reach], [1]
    return block, tuple(strides), tuple(extents), tuple(steps)


@given(reads_of_blocks())
def test_a_view_meets_the_element_the_tile_holds(case):
    block, tile_strides, extents, strides = case
    while isinstance(mapping := map_onto_block(strides, extents, block, tile_strides), NeedsCut):
        inner = 1
        for position in range(len(extents) - 1, -1, -1):
            if inner < mapping.cut < inner * extents[position]:
                part = mapping.cut // inner
                extents = (*extents[:position], extents[position] // part, part, *extents[position + 1 :])
                strides = (*strides[:position], strides[position] * part, *strides[position:])
                break
            inner *= extents[position]
    if mapping is None:
        return
    block_strides = (1000, 100, 10, 1)
    through_view = [block_strides[d] * times for d, times in mapping]
    element_at = dict(zip(offsets(block, tile_strides), offsets(block, block_strides), strict=True))
    assert [element_at[o] for o in offsets(extents, strides)] == offsets(extents, through_view)


def ir_of(body):
    head = """
    argument destination=r1 index=0
    load_immediate destination=r2 value=4
    load dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x256 tile=@0x0{0,0,0,1} signal_a=s1
    vector_sync wait_a=s1
    """
    tail = """
    store dtype=f32 base=r1 strides=r0,r0,r0,r2 shape=1x1x1x256 tile=@0x1000{0,0,0,1} wait_a=s2
    halt
    """
    items = assemble(head + body + tail)
    program = Program("groups", CHIP.name, items, (Parameter("memory", "*fp32"),), scratchpad_bytes=1 << 14)
    return translate(program)


ELEMENTWISE = """
    map2 function=mul dtype=f32 shape=1x1x1x256 a=@0x0{0,0,0,1} b=@0x0{0,0,0,1} result=@0x800{0,0,0,1}
    map2 function=add dtype=f32 shape=1x1x16x16 a=@0x800{0,0,16,1} b=@0x0{0,0,16,1} result=@0x1000{0,0,16,1} signal_a=s2
"""


def test_elementwise_work_never_touches_the_scratchpad():
    """A load, two instructions on differently shaped views of one tile, a store: one loop from HBM to HBM."""
    text = ir_of(ELEMENTWISE)
    assert text.count("call i64 %call_view_block") == text.count("call i64 %call_place_block") == 1
    assert text.count("store <") == 1 and text.count("load <") == 1


def test_what_is_read_again_stays():
    """The same, but the product is read in another order afterwards: it is stored once."""
    text = ir_of(
        ELEMENTWISE.replace(" signal_a=s2", "")
        + "map1 function=neg dtype=f32 shape=1x1x16x16 a=@0x800{0,0,1,16} result=@0x1000{0,0,16,1} signal_a=s2\n"
    )
    assert text.count("call i64 %call_place_block") == 1
    assert text.count("store <") == 2


def test_a_reduction_reads_what_its_group_computes():
    text = ir_of(
        """
    map2 function=mul dtype=f32 shape=1x1x1x256 a=@0x0{0,0,0,1} b=@0x0{0,0,0,1} result=@0x800{0,0,0,1}
    reduce function=add dtype=f32 shape=1x1x4x64 a=@0x800{0,0,64,1} result=@0x2000{0,0,1,0}
    map2 function=add dtype=f32 shape=1x1x4x64 a=@0x2000{0,0,1,0} b=r0 result=@0x1000{0,0,64,1} signal_a=s2
    """
    )
    assert text.count("call <") == 0 and " fmul " in text
    assert text.count("store <") == 1  # the products are not
