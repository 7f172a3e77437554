"""Compiled kernels mean what NumPy says, under every schedule of the queues, on every size of scratchpad.

The evaluator finds races, deadlocks and leftover semaphores by itself, so running a kernel there under adversarial
schedules is the test of the synchronisation pass; the functional simulator must leave the same bytes.
"""

import math
from dataclasses import dataclass, replace

import kernels
import numpy as np
import pytest

from tapeout import chip, runtime
from tapeout.codegen.pipeline import compile_kernel
from tapeout.isa.fields import QUEUES
from tapeout.numerics.operations import Function
from tapeout.sim import evaluator, schedules
from tapeout.sim.faults import Fault

TINY = chip.load("tiny")
HBM = 1 << 19


def with_scratchpad(size_bytes, **core):
    scratchpad = replace(TINY.core.scratchpad, size_bytes=size_bytes)
    return replace(TINY, name=f"tiny{size_bytes}", core=replace(TINY.core, scratchpad=scratchpad, **core))


@dataclass
class Case:
    """A kernel with inputs: arrays are laid out in HBM one after the other, other arguments go as they are."""

    name: str
    text: str
    grid: tuple
    arguments: list
    expected: dict


def _cases():
    rng = np.random.default_rng(3)

    def normal(*shape, dtype=np.float32):
        return rng.standard_normal(shape).astype(dtype)

    x, y = normal(300), normal(300)
    yield Case(
        "vector_add",
        kernels.ttir(kernels.vector_add, "*fp32 *fp32 *fp32 i32", BLOCK=128),
        (3, 1, 1),
        [x, y, np.zeros_like(x), 300],
        {2: x + y},
    )
    x = normal(8, 250)
    e = np.exp(x - x.max(1, keepdims=True))
    yield Case(
        "row_softmax",
        kernels.ttir(kernels.row_softmax, "*fp32 *fp32 i32 i32", ROWS=4, COLUMNS=256),
        (2, 1, 1),
        [x, np.zeros_like(x), 250, 250],
        {1: e / e.sum(1, keepdims=True)},
    )
    a, b = normal(50, 60, dtype=np.float16), normal(60, 40, dtype=np.float16)
    yield Case(
        "matmul",
        kernels.ttir(kernels.matmul, "*fp16 *fp16 *fp32 i32 i32 i32 i32 i32 i32", BM=32, BN=32, BK=16),
        (2, 2, 1),
        [a, b, np.zeros((50, 40), np.float32), 50, 40, 60, 60, 40, 40],
        {2: a.astype(np.float32) @ b.astype(np.float32)},
    )
    q, k, v = normal(32, 16), normal(32, 16), normal(32, 16)
    scores = np.where(np.tri(32, dtype=bool), q @ k.T * 0.25, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    yield Case(
        "attention",
        kernels.ttir(kernels.attention, "*fp32 *fp32 *fp32 *fp32 i32 fp32", D=16, B=16),
        (2, 1, 1),
        [q, k, v, np.zeros_like(q), 32, int(np.float32(0.25).view(np.int32))],
        {3: weights / weights.sum(1, keepdims=True) @ v},
    )
    x = normal(32, 32)
    u = x + x.T
    yield Case(
        "rearrange",
        kernels.ttir(kernels.rearrange, "*fp32 *fp32", N=32),
        (1, 1, 1),
        [x, np.zeros_like(x)],
        {1: u * u.sum(0) + u.argmax(1)[:, None]},
    )
    table, index = normal(20, 16), rng.integers(0, 20, 16).astype(np.int32)
    yield Case(
        "gather_rows",
        kernels.ttir(kernels.gather_rows, "*fp32 *i32 *fp32", D=16, B=8),
        (2, 1, 1),
        [table, index, np.zeros((16, 16), np.float32)],
        {2: table[index]},
    )
    x = normal(64)
    yield Case(
        "early_return",
        kernels.ttir(kernels.early_return, "*fp32 i32", BLOCK=16),
        (6, 1, 1),
        [x, 64],
        {0: x * 2},
    )
    x = normal(7, 16)
    expected = np.zeros((4, 16), np.float32)
    for pid in range(4):
        step = 3
        for i in range(8):
            first = (pid * step + i * 5) % 7
            second = (first * 3 + i) % 5
            expected[pid] += x[first] * x[second]
            step += second
    yield Case(
        "many_scalars",
        kernels.ttir(kernels.many_scalars, "*fp32 *fp32 i32", N=8),
        (4, 1, 1),
        [x, np.zeros((4, 16), np.float32), 3],
        {1: expected},
    )
    x = np.array([1, 2, 3, 7, 6, 5, 9, 4], np.int32)
    steps = []
    for n in x.tolist():
        count = 0
        while n > 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            count += n > 1
        steps.append(count)
    yield Case(
        "collatz",
        kernels.ttir(kernels.collatz, "*i32 *i32", BLOCK=8),
        (1, 1, 1),
        [x, np.zeros(8, np.int32)],
        {1: np.array(steps, np.int32)},
    )
    x, w = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((66, 32), (3, 32, 32)))
    yield Case(
        "taps",
        kernels.ttir(kernels.taps, "*fp32 *fp32 *fp32", C=32, TAPS=3, FAR=1, B=32, BC=16),
        (2, 1, 1),
        [x, w, np.zeros((64, 32), np.float32)],
        {2: sum(x[tap : tap + 64] @ w[tap] for tap in range(3))},
    )
    x = normal(17)
    yield Case(
        "neighbours_in_place",
        kernels.ttir(kernels.neighbours_in_place, "*fp32", B=16),
        (1, 1, 1),
        [x],
        {0: np.append(x[1:] + np.append(x[2:], x[16]), x[16])},
    )
    for rows, columns in ((64, 64), (4, 512)):
        x = normal(rows, columns)
        offset = x - x.mean(1, keepdims=True)
        yield Case(
            f"row_norm_{columns}",
            kernels.ttir(kernels.row_norm, "*fp32 *fp32", ROWS=rows, COLUMNS=columns),
            (1, 1, 1),
            [x, np.zeros_like(x)],
            {1: offset / np.sqrt((offset * offset).mean(1, keepdims=True)) + (x * offset).sum(0)},
        )
    x, n = normal(8, 32), rng.integers(-9, 9, (8, 32)).astype(np.int32)
    x[3, 7] = x[5, 0] = x[5, 31] = np.nan
    yield Case(
        "extrema",
        kernels.ttir(kernels.extrema, "*fp32 *i32 *fp32 *i32", ROWS=8, COLUMNS=32),
        (1, 1, 1),
        [x, n, np.zeros(8, np.float32), np.zeros(8, np.int32)],
        {2: np.minimum(x.max(1), -x.min(1)), 3: n.max(1)},
    )
    x, gradient = normal(40), normal(40)
    for found in (0.0, 1.0):
        yield Case(
            f"step_if_finite_{found:.0f}",
            kernels.ttir(kernels.step_if_finite, "*fp32 *fp32 *fp32 i32", B=32),
            (2, 1, 1),
            [x, gradient, np.array([found], np.float32), 40],
            {0: x if found else x - gradient},
        )


CASES = {case.name: case for case in _cases()}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def lay_out(case, base):
    """HBM's content, the raw arguments, and where each array lies."""
    data = np.zeros(HBM, np.uint8)
    words, places, position = [], {}, 256
    for number, argument in enumerate(case.arguments):
        if isinstance(argument, np.ndarray):
            data[position : position + argument.nbytes] = argument.reshape(-1).view(np.uint8)
            words.append(base + position)
            places[number] = (position, argument)
            position += -(-argument.nbytes // 256) * 256
        else:
            words.append(argument)
    return data, words, places, position


def evaluate(case, description, schedule=None, program=None):
    program = program or compile_kernel(case.text, description)
    base = 1 << 20
    data, words, places, end = lay_out(case, base)
    memory = evaluator.Memory(base, data)
    evaluator.run(program, description, case.grid, words, memory, workspace=base + end, schedule=schedule)
    return {
        number: data[start : start + argument.nbytes].view(argument.dtype).reshape(argument.shape).copy()
        for number, (start, argument) in places.items()
    }


def simulate(case, description):
    program = compile_kernel(case.text, description)
    arrays = {n: a.copy() for n, a in enumerate(case.arguments) if isinstance(a, np.ndarray)}
    words = [arrays[n].ctypes.data if n in arrays else a for n, a in enumerate(case.arguments)]
    runtime.load(program, description).launch(case.grid, words)
    return arrays


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    for number in left:
        assert left[number].tobytes() == right[number].tobytes(), f"argument {number}"


def test_means_what_numpy_says(case):
    result = evaluate(case, TINY)
    for number, expected in case.expected.items():
        np.testing.assert_allclose(result[number], expected, rtol=2e-5, atol=2e-6)


def test_simulator_equals_evaluator(case):
    assert_same_bits(simulate(case, TINY), evaluate(case, TINY))


@pytest.mark.parametrize("unit", QUEUES, ids=lambda unit: unit.value)
@pytest.mark.parametrize("kind", [schedules.Early, schedules.Late], ids=["early", "late"])
def test_any_schedule_gives_the_same(case, kind, unit):
    assert_same_bits(evaluate(case, TINY, kind(unit)), evaluate(case, TINY))


@pytest.mark.parametrize("size_bytes", [4096, 8192])
def test_small_scratchpads_give_the_same(case, size_bytes):
    small = with_scratchpad(size_bytes)
    expected = evaluate(case, TINY)
    assert_same_bits(evaluate(case, small), expected)
    assert_same_bits(evaluate(case, small, schedules.Random(size_bytes)), expected)
    assert_same_bits(simulate(case, small), expected)


def loads_of(far, description):
    text = kernels.ttir(kernels.taps, "*fp32 *fp32 *fp32", C=32, TAPS=3, FAR=far, B=32, BC=16)
    return [item for item in compile_kernel(text, description).instructions if item.mnemonic == "load"]


def test_loads_that_overlap_are_shared():
    loads = loads_of(1, TINY)
    assert sorted(load.shape[2] for load in loads) == [16, 16, 16, 34]
    assert len(loads_of(64, TINY)) == 6


def test_loads_are_not_shared_where_tiles_must_be_split():
    assert max(load.shape[2] for load in loads_of(1, with_scratchpad(4096))) <= 32


def test_sums_of_products_take_a_multiply_add_an_element():
    """Two parts each, along columns of 64 and along rows of 512: one is multiplied, the other multiplied and added."""

    def elements(function, name, **options):
        items = compile_kernel(CASES[name].text, chip.load("inference"), **options).instructions
        return sum(math.prod(item.shape) for item in items if getattr(item, "function", None) is function)

    for name, size in (("row_norm_64", 64 * 64), ("row_norm_512", 4 * 512)):
        for function, saved in ((Function.MUL, size / 2), (Function.ADD, size / 2), (Function.FMA, -size / 2)):
            difference = elements(function, name, fuses_products=False) - elements(function, name)
            assert difference == pytest.approx(saved, rel=1 / 32), (name, function)  # but for what parts leave
        assert elements(Function.FMA, name, fuses_products=False) == 0


def test_extrema_written_out_are_the_engines():
    items = compile_kernel(CASES["extrema"].text, TINY).instructions
    functions = [item.function for item in items if item.mnemonic == "reduce"]
    assert functions == [Function.MAXIMUM, Function.MINIMUM, Function.MAX_SIGNED]
    assert not any(getattr(item, "function", None) is Function.SELECT for item in items)


def test_what_a_product_is_added_to_is_computed_in_its_place():
    """Of the attention kernel's tiles one is copied: the zeros its sums begin with, before the loop."""
    items = compile_kernel(CASES["attention"].text, TINY).instructions
    copies = [item for item in items if item.mnemonic == "map1" and item.function is Function.COPY]
    assert [math.prod(item.shape) for item in copies if math.prod(item.shape) > 16] == [256]


def test_few_semaphores_and_registers_give_the_same(case):
    poor = replace(TINY, name="poor", core=replace(TINY.core, semaphore_count=4, register_count=64))
    assert_same_bits(evaluate(case, poor, schedules.Random(1)), evaluate(case, TINY))


def test_a_missing_semaphore_is_noticed():
    """Taking any one wait out of a program is found by the evaluator: the waits are needed, and the check can fail."""
    case = CASES["matmul"]
    program = compile_kernel(case.text, TINY)
    waiting = [
        (index, name)
        for index, item in enumerate(program.instructions)
        for name in ("wait_a", "wait_b")
        if getattr(item, name, 0)
    ]
    assert len(waiting) > 5
    for index, name in waiting:
        items = list(program.instructions)
        items[index] = replace(items[index], **{name: 0})
        with pytest.raises(Fault):
            evaluate(case, TINY, program=replace(program, instructions=tuple(items)))
