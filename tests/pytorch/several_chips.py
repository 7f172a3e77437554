"""What test_several_chips.py runs in a process of its own, on three chips: training, training and inference."""

import copy

import pytest
import torch
import triton
import triton.language as tl
from torch import nn

from tapeout import chip as chips
from tapeout.errors import ChipError
from tapeout.runtime import session


def on(index, *shape):
    return torch.arange(float(torch.Size(shape).numel()), device=f"chip:{index}").reshape(shape)


def test_each_chip_is_its_own_kind():
    assert torch.chip.device_count() == torch.accelerator.device_count() == 3
    names = [torch.chip.get_device_name(index) for index in range(3)]
    assert names == ["training", "training", "inference"]
    sizes = [torch.chip.get_device_properties(index).total_memory for index in range(3)]
    assert sizes == [torch.chip.mem_get_info(index)[1] for index in range(3)] and sizes[0] != sizes[2]


def test_the_current_chip_is_chosen_as_on_a_gpu():
    assert torch.ones(1, device="chip").device.index == 0
    with torch.chip.device(1):
        assert torch.ones(1, device="chip").device.index == torch.accelerator.current_device_index() == 1
        with torch.chip.device_of(on(2, 1)):
            assert torch.chip.current_device() == 2 and chips.active().name == "inference"
        with torch.chip.device_of(torch.ones(1)):
            assert torch.chip.current_device() == 1
    with torch.accelerator.device_index(2):
        assert torch.chip.current_device() == 2
    torch.chip.set_device("chip:1")
    assert torch.chip.current_device() == 1
    torch.accelerator.set_device_index(0)
    assert torch.chip.current_device() == 0


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: torch.ones(1, device="chip:3"), "device 'chip:3' does not exist"),
        (lambda: torch.ones(1).to("chip:3"), "device 'chip:3' does not exist"),
        (lambda: torch.chip.set_device(3), "there is no chip 3"),
        (lambda: torch.Generator("chip:3"), "device 'chip:3' does not exist"),
    ],
)
def test_a_chip_that_is_not_there_is_refused(ask, sentence):
    with pytest.raises((RuntimeError, ValueError)) as refused:
        ask()
    assert str(refused.value).splitlines()[0] == (f"{sentence}: this process simulates 3 chips, 'chip:0' to 'chip:2'")


def test_operators_run_where_their_tensors_are():
    for index in range(3):
        x = on(index, 8, 8)
        made = [
            x @ x,
            x + 1,
            torch.special.i0(x / 64),
            torch.cumprod(x, 0),
            x.sort().values,
            x.nonzero(),
            torch.rand_like(x),
        ]
        assert {each.device.index for each in made} == {index}
        assert torch.equal((x @ x).cpu(), x.cpu() @ x.cpu())


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b: a + b,
        lambda a, b: a @ b,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: a[b.long()],
        lambda a, b: torch.add(a, a, out=b),
        lambda a, b: a + b.sum(),
    ],
)
def test_tensors_of_different_chips_do_not_mix(combine):
    with pytest.raises(RuntimeError, match=r"at least two devices, chip:[01] and chip:[01]!"):
        combine(on(0, 2, 2), on(1, 2, 2))


def test_memory_and_random_numbers_are_each_chips_own():
    before = [torch.chip.memory_allocated(index) for index in range(3)]
    kept = torch.empty(1 << 20, device="chip:1")
    after = [torch.chip.memory_allocated(index) for index in range(3)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, kept.nbytes, 0]
    assert torch.accelerator.memory_allocated(1) == after[1]
    torch.manual_seed(7)
    first = [torch.rand(4, device=f"chip:{index}").tolist() for index in range(3)]
    assert first[0] == first[1] == first[2]
    with torch.chip.device(1):
        torch.chip.manual_seed(8)
    assert torch.rand(4, device="chip:0").tolist() == torch.rand(4, device="chip:2").tolist()
    states = torch.chip.get_rng_state_all()
    drawn = torch.rand(4, device="chip:1").tolist()
    torch.chip.set_rng_state_all(states)
    assert torch.rand(4, device="chip:1").tolist() == drawn
    with pytest.raises(RuntimeError, match="Expected a 'chip:0' device type for generator but found 'chip:1'"):
        torch.rand(4, device="chip:0", generator=torch.Generator("chip:1"))


def test_copies_between_chips_keep_values_type_and_layout():
    x = torch.randn(6, 5, device="chip:0")
    assert torch.equal(x.to("chip:1").cpu(), x.cpu())
    assert torch.equal(x.t().to("chip:2").cpu(), x.cpu().t())
    assert torch.equal(x.to("chip:1", torch.bfloat16).cpu(), x.cpu().bfloat16())
    into = torch.zeros(5, 6, device="chip:2").t()
    into.copy_(x)
    assert torch.equal(into.cpu(), x.cpu())
    row = torch.zeros(4, 5, dtype=torch.float64, device="chip:1")
    assert torch.equal(row.copy_(x[0]).cpu(), x[0].cpu().double().expand(4, 5))
    z = torch.complex(x, x).conj()
    assert torch.equal(z.to("chip:1").cpu(), z.cpu())
    assert torch.empty(0, device="chip:0").to("chip:1").shape == (0,)


def test_gradients_cross_chips():
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8) for _ in range(3)]
    moved = [copy.deepcopy(layer).to(f"chip:{index}") for index, layer in enumerate(layers)]
    x = torch.randn(4, 8)

    def loss(layers, place):
        y = x
        for index, layer in enumerate(layers):
            y = layer(place(y, index)).relu()
        return y.square().sum()

    want, got = loss(layers, lambda y, index: y), loss(moved, lambda y, index: y.to(f"chip:{index}"))
    want.backward()
    got.backward()
    for host, chip in zip(layers, moved, strict=True):
        assert chip.weight.grad.device == chip.weight.device
        torch.testing.assert_close(chip.weight.grad.cpu(), host.weight.grad)
    torch.optim.AdamW([parameter for layer in moved for parameter in layer.parameters()], lr=0.1).step()
    torch.nn.utils.clip_grad_norm_([parameter for layer in moved for parameter in layer.parameters()], 1.0)


def test_compiled_functions_run_where_their_tensors_are():
    compiled = torch.compile(lambda x: torch.softmax(x, -1) * 2)
    for index in range(3):
        x = torch.randn(4, 16, device=f"chip:{index}")
        got = compiled(x)
        assert got.device == x.device
        torch.testing.assert_close(got.cpu(), torch.softmax(x.cpu(), -1) * 2)
    crossing = torch.compile(lambda x: (x + 1).to("chip:1") * 2)
    assert crossing(on(0, 4)).tolist() == [2, 4, 6, 8]


@triton.jit
def add_one(source, target, size: tl.constexpr):
    places = tl.arange(0, size)
    tl.store(target + places, tl.load(source + places) + 1)


def test_triton_kernels_run_where_their_tensors_are():
    x = on(2, 16)
    y = torch.empty_like(x)
    before = counts()
    add_one[(1,)](x, y, 16)
    assert (y.cpu() - x.cpu()).eq(1).all()
    assert before[2] is None or counts()[2] > before[2]
    with pytest.raises(
        RuntimeError, match="argument 'target' is in the memory of chip:1, and the kernel runs on chip:2"
    ):
        add_one[(1,)](x, on(1, 16), 16)


def counts():
    kinds = [clock.elapsed.counts for clock in session.clocks] or [None] * 3
    return [None if kind is None else sum(kind.values()) for kind in kinds]


def milliseconds(index, work):
    """The chip's time from before the work to its end."""
    with torch.chip.device(index):
        start, end = (torch.chip.Event(enable_timing=True) for _ in range(2))
        torch.accelerator.synchronize()
        start.record()
        work()
        end.record()
        end.synchronize()
    return start.elapsed_time(end)


def test_work_on_one_chip_costs_another_no_time():
    a, b = torch.ones(256, 256, device="chip:0"), torch.ones(256, 256, device="chip:1")

    def alone():
        return a @ a, a @ a

    def beside():
        return b @ b, a @ a, b @ b, b @ b, a @ a

    milliseconds(0, beside)
    assert milliseconds(0, alone) == milliseconds(0, beside)
    both = milliseconds(0, beside), milliseconds(1, lambda: (b @ b, b @ b, b @ b))
    assert both[1] > both[0]  # three products take longer than two: they ran at the same time


def test_copies_take_the_links_time_and_work_waits_for_them():
    session.turn_on()
    size = 1 << 22
    x = torch.ones(size, device="chip:0")
    links = chips.of_process()[2].links  # the slower end
    least_ms = x.nbytes / (links.link_count * links.bandwidth_bytes_per_s) * 1e3
    took = milliseconds(0, lambda: x.to("chip:2"))
    assert least_ms < took < 2 * least_ms
    y = torch.empty_like(x, device="chip:2")
    with torch.chip.device(2):
        after = torch.chip.Event(enable_timing=True)
        y.copy_(x)
        after.record()
    assert not after.query()  # the host goes on
    kinds = session.clocks[0].elapsed.counts
    assert {kind.value: count for kind, count in kinds.items()}["copy to another chip"] >= 2


def test_streams_belong_to_a_chip():
    stream = torch.Stream(device="chip:1")
    assert stream.device.index == 1 and torch.chip.Stream(2).device.index == 2
    with torch.chip.stream(stream):
        assert torch.chip.current_device() == 1 and torch.chip.current_stream() == stream
    assert torch.chip.current_device() == 0 and torch.chip.current_stream(1) == torch.chip.default_stream(1)
    with torch.chip.device(1):
        event = torch.Event("chip")
        event.record(stream)
    torch.chip.current_stream(0).wait_event(event)


def test_graphs_replay_where_they_were_captured():
    x = torch.zeros(8, device="chip:1")
    with torch.chip.device(1):
        x + 1
        graph = torch.chip.Graph()
        with torch.chip.graph(graph):
            y = x + 1
    x.fill_(4)
    graph.replay()
    assert y.device.index == 1 and y.tolist() == [5] * 8
    refusal = "copying a tensor from one chip to another while a graph is captured"
    with pytest.raises(RuntimeError, match=refusal), torch.chip.graph(torch.chip.Graph()):
        x.to("chip:0")


def test_data_parallel_gives_the_gradients_of_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    model.eval()  # batch statistics are of each chip's share
    want = copy.deepcopy(model)
    x = torch.randn(7, 6)
    parallel = nn.DataParallel(model.to("chip:0"))
    got = parallel(x.to("chip:0"))
    got.square().sum().backward()
    want(x).square().sum().backward()
    assert got.device.index == 0 and len(parallel.device_ids) == 3
    for host, chip in zip(want.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(chip.grad.cpu(), host.grad, rtol=1e-4, atol=1e-5)


def test_accelerate_places_a_model_on_all_chips():
    modeling = pytest.importorskip("accelerate.utils.modeling")
    accelerate = pytest.importorskip("accelerate")
    free = modeling.get_max_memory()
    assert {key: free[key] for key in range(3)} == {key: torch.chip.mem_get_info(key)[0] for key in range(3)}
    model = nn.Sequential(*(nn.Linear(32, 32) for _ in range(6)))
    want = model(torch.ones(2, 32))
    one = accelerate.dispatch_model(copy.deepcopy(model), {"": 0})(torch.ones(2, 32, device="chip:0"))
    room = modeling.get_balanced_memory(model)
    places = modeling.infer_auto_device_map(model, room)
    assert set(places.values()) == {0, 1, 2}
    spread = accelerate.dispatch_model(model, places)(torch.ones(2, 32, device="chip:0"))
    assert torch.equal(spread.cpu(), one.cpu())
    torch.testing.assert_close(spread.cpu(), want)


def test_another_chip_is_not_activated_meanwhile():
    with pytest.raises(ChipError, match=r"^cannot activate 'tiny': TAPEOUT_CHIPS=training,training,inference names"):
        chips.activate("tiny")
