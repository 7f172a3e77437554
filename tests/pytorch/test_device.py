"""The device as a PyTorch program sees it: memory, copies, views, autograd, saving, random numbers, streams."""

import copy
import gc
import io
import pickle
import subprocess
import sys

import pytest
import torch

import tapeout.chip
from tapeout.errors import ChipError
from tapeout.pytorch import device as chip_device
from tapeout.pytorch import ledger
from tapeout.runtime import session
from tapeout.workbench import work

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_the_device_describes_the_active_chip():
    chip = tapeout.chip.active()
    properties = torch.chip.get_device_properties()
    assert torch.chip.is_available() and torch.chip.device_count() == 1 and torch.chip.current_device() == 0
    assert (properties.name, properties.total_memory) == (chip.name, chip.hbm.size_bytes)
    assert properties.multi_processor_count == chip.core_count
    assert torch.chip.get_device_name() == chip.name


def test_a_tensor_lies_in_hbm():
    hbm = chip_device.arena()
    assert hbm.size_bytes == tapeout.chip.active().hbm.size_bytes
    for length in (1, 1000, 12345):
        tensor = torch.empty(length, device="chip")
        assert hbm.address <= tensor.data_ptr() < hbm.address + hbm.size_bytes
        assert tensor.data_ptr() % 512 == 0


def test_block_of_knows_live_addresses_only():
    tensor = torch.empty(100, device="chip")
    address = tensor.data_ptr()
    assert chip_device.block_of(address + 399) == chip_device.Block(address, 400)
    assert chip_device.block_of(address + 400) is None
    assert chip_device.block_of(torch.empty(4).data_ptr()) is None
    del tensor
    assert chip_device.block_of(address) is None


def test_freed_memory_is_joined_and_used_again():
    blocks = [torch.empty(1024, dtype=torch.uint8, device="chip") for _ in range(8)]
    first = min(block.data_ptr() for block in blocks)
    contiguous = sorted(block.data_ptr() for block in blocks) == [first + 1024 * i for i in range(8)]
    gc.collect()
    before = torch.chip.memory_allocated()
    del blocks
    assert torch.chip.memory_allocated() == before - 8 * 1024
    if contiguous:  # other tests' tensors may lie between them
        assert torch.empty(8 * 1024, dtype=torch.uint8, device="chip").data_ptr() <= first


def test_memory_statistics():
    gc.collect()
    torch.chip.reset_peak_memory_stats()
    before = torch.chip.memory_allocated()
    tensor = torch.empty(1 << 20, dtype=torch.uint8, device="chip")
    assert torch.chip.memory_allocated() == before + (1 << 20)
    del tensor
    assert torch.chip.memory_allocated() == before
    assert torch.chip.max_memory_allocated() >= before + (1 << 20)
    free, total = torch.chip.mem_get_info()
    assert total - free == before
    torch.chip.empty_cache()
    assert torch.chip.memory_reserved() >= torch.chip.memory_allocated()


def test_exhausted_memory_is_torchs_own_error():
    size = tapeout.chip.active().hbm.size_bytes
    with pytest.raises(
        torch.OutOfMemoryError, match=r"tried to allocate .* GiB, but of the .* of HBM on chip"
    ) as error:
        torch.empty(size + 1, dtype=torch.uint8, device="chip")
    assert "are missing" in str(error.value) and "a chip with more memory" in str(error.value)
    assert torch.chip.memory_stats()["num_ooms"] >= 1


def test_there_is_one_chip():
    with pytest.raises(RuntimeError, match="device 'chip:1' does not exist: this process simulates one chip"):
        torch.empty(1, device="chip:1")
    with pytest.raises(ValueError, match="there is no chip 3"):
        torch.chip.set_device(3)


def test_the_chip_cannot_change_under_a_tensor():
    tensor = torch.empty(10, device="chip")
    with pytest.raises(ChipError, match="bytes of the present chip's HBM are in use"):
        tapeout.chip.activate("tiny" if tapeout.chip.active().name != "tiny" else "training")
    del tensor


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_keep_every_bit(dtype):
    host = (torch.randn(7, 9) * 3).to(dtype)
    assert torch.equal(host.to("chip").cpu(), host)
    assert torch.equal(host.t().to("chip").cpu(), host.t())
    assert torch.equal(host.to("chip")[1:5, ::2].cpu(), host[1:5, ::2])


def test_copies_convert():
    host = torch.randn(33)
    assert torch.equal(host.to("chip", torch.bfloat16).cpu(), host.bfloat16())
    assert torch.equal(host.to("chip").to("cpu", torch.float64), host.double())


def test_views_share_memory():
    base = torch.zeros(4, 6, device="chip")
    base.t()[2].fill_(5)
    base.view(2, 12).as_strided((2,), (1,), 3).fill_(7)
    assert base.reshape(-1)[3:5].tolist() == [7, 7]
    assert base[:, 2].tolist() == [5, 5, 5, 5]
    assert base.unfold(0, 2, 1).data_ptr() == base.data_ptr()


def test_resizing_keeps_what_fits():
    tensor = torch.arange(6.0).to("chip")
    tensor.resize_(3)
    tensor.resize_(100)
    assert tensor[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert chip_device.block_of(tensor.data_ptr()).size_bytes >= 400


def test_tied_weights_stay_tied():
    model = torch.nn.Module()
    model.first, model.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    model.second.weight = model.first.weight
    model.to("chip")
    assert model.first.weight is model.second.weight
    assert model.first.weight.device.type == "chip"


def test_printing_and_pickling_and_copying():
    tensor = torch.tensor([1.5, 2.5], device="chip")
    assert repr(tensor) == "tensor([1.5000, 2.5000], device='chip:0')"
    for other in (pickle.loads(pickle.dumps(tensor)), copy.deepcopy(tensor), tensor.clone()):
        assert other.device == tensor.device and other.data_ptr() != tensor.data_ptr()
        assert other.tolist() == [1.5, 2.5]


def test_saving_and_loading():
    layer = torch.nn.Linear(3, 2).to("chip")
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert torch.load(file)["weight"].device.type == "chip"
    file.seek(0)
    on_host = torch.load(file, map_location="cpu")
    assert torch.equal(on_host["weight"], layer.weight.detach().cpu())


def test_autograd_agrees_with_the_cpu():
    torch.manual_seed(0)
    weight, values = torch.randn(5, 5), torch.randn(3, 5)
    gradients = []
    for device in ("cpu", "chip"):
        w = weight.clone().to(device).requires_grad_()
        torch.relu(values.to(device) @ w).pow(2).mean().backward()
        gradients.append(w.grad.cpu())
    torch.testing.assert_close(gradients[1], gradients[0])


def test_no_abort_when_the_interpreter_ends_after_backward():
    program = (
        "import torch, tapeout\n"
        "w = torch.ones(3, device='chip', requires_grad=True)\n"
        "(w * w).sum().backward()\n"
        "print(w.grad.tolist())"
    )
    done = run(program)
    assert (done.returncode, done.stdout.strip()) == (0, "[2.0, 2.0, 2.0]"), done.stderr


def test_float64_random_numbers_keep_bounds_and_precision():
    drawn = torch.empty(10_000, dtype=torch.float64, device="chip").uniform_(0.1, 0.2).cpu()
    assert drawn.min() >= 0.1 and drawn.max() < 0.2  # 0.1 and 0.2 rounded to float32 are larger than both
    normal = torch.empty(1_000, dtype=torch.float64, device="chip").normal_().cpu()
    assert (normal.float().double() != normal).any()


@pytest.mark.parametrize("low, high", [(-(2**63), 2**63 - 1), (-5, 2**33), (7, 3 * 2**61)])
def test_integers_of_a_wide_range_are_the_upper_half_of_a_product(low, high):
    """As torch.compile asks for them when it draws seeds."""
    torch.manual_seed(9)
    words = torch.empty(100, dtype=torch.int64, device="chip").random_(-(2**63), None)
    torch.manual_seed(9)
    before = work.so_far()
    drawn = torch.empty(100, dtype=torch.int64, device="chip").random_(low, high)
    assert not (work.so_far() - before).ops_on_host
    assert drawn.tolist() == [low + ((word + 2**63) * (high - low) >> 64) for word in words.tolist()]


def test_random_numbers_follow_the_seed():
    torch.manual_seed(7)
    first = torch.randn(5, device="chip")
    assert not torch.equal(torch.randn(5, device="chip"), first)
    torch.manual_seed(7)
    assert torch.equal(torch.randn(5, device="chip"), first)
    state = torch.chip.get_rng_state()
    again = torch.rand(3, device="chip").tolist()
    torch.chip.set_rng_state(state)
    assert torch.rand(3, device="chip").tolist() == again
    generator = torch.Generator("chip")
    assert generator.device.type == "chip"
    generator.manual_seed(7)
    assert torch.equal(torch.randn(5, device="chip", generator=generator), first)
    with pytest.raises(RuntimeError, match=r"is a CPU tensor of 16 bytes \(seed and offset\)"):
        generator.set_state(torch.zeros(5000, dtype=torch.uint8))


def test_pinned_memory_is_known():
    assert torch.ones(3).pin_memory().is_pinned()
    assert not torch.ones(3).is_pinned()


def test_lazy_conjugation_is_resolved():
    values = torch.randn(8, dtype=torch.complex64)
    assert torch.equal(values.to("chip").conj().resolve_conj().cpu(), values.conj().resolve_conj())
    torch.testing.assert_close(torch.fft.hfft(values.to("chip")).cpu(), torch.fft.hfft(values))
    assert torch.equal(values.to("chip").conj().imag.cpu(), values.conj().imag)


@pytest.fixture
def clock_off_afterwards():
    yield
    session.turn_off()


def test_streams_and_events(clock_off_afterwards):
    start, end = torch.chip.Event(enable_timing=True), torch.chip.Event(enable_timing=True)
    start.record()
    with torch.chip.stream(torch.chip.Stream()):
        torch.ones(3, device="chip")
    end.record()
    torch.chip.synchronize()
    assert end.query() and start.elapsed_time(end) >= 0
    assert torch.chip.current_stream().device_type == torch.device("chip").type or torch.chip.current_stream()


def test_triton_finding_its_back_ends_does_not_import_torch_or_wake_the_device():
    program = (
        "import sys, triton, tapeout\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'chip' in triton.backends.backends\n"
        "import torch\n"
        "assert not torch.chip.is_initialized()\n"
        "print(triton.runtime.driver.active.get_active_torch_device())"
    )
    done = run(program)
    assert (done.returncode, done.stdout.strip()) == (0, "chip"), done.stderr


@pytest.mark.parametrize(
    "given",
    [
        torch.ones(2),
        torch.arange(3000.0).view(50, 60) / 7,
        torch.tensor(2.5),
        torch.tensor([[1, -20]]),
        torch.tensor([1e-9, float("nan"), float("inf")]),
        torch.ones(3, dtype=torch.float16) / 3,
        torch.tensor([1 + 2j]),
        torch.tensor([True]),
        torch.ones(0, 3),
    ],
    ids=str,
)
def test_a_tensor_is_printed_as_the_hosts_and_nothing_is_computed_for_it(given):
    tensor = given.to("chip")
    ledger.reset()
    text = repr(tensor)
    counts = ledger.snapshot()
    assert text.replace(", device='chip:0'", "") == repr(given)
    assert not counts.on_host and set(counts.on_chip) <= {"aten::cat"}, counts  # the edges of a large tensor


def test_normal_numbers_of_tensors_and_what_the_host_refuses():
    mean, std = torch.arange(4.0, device="chip"), torch.full((4,), 0.25, device="chip")
    state = torch.get_rng_state()
    assert (torch.normal(mean, std) - mean).abs().max() < 2 and torch.normal(mean.view(4, 1), std).shape == (4, 4)
    assert torch.normal(mean, torch.zeros(4, device="chip")).tolist() == [0, 1, 2, 3]
    for call in (lambda: torch.normal(mean, -1.0), lambda: torch.normal(0.0, -std), lambda: torch.normal(mean, -std)):
        with pytest.raises(RuntimeError, match=r"^normal expects (all elements of )?std >= 0\.0"):
            call()
    with pytest.raises(NotImplementedError, match=r"\"normal_kernel_cpu\" not implemented for 'Long'"):
        torch.normal(0.0, torch.ones(3, dtype=torch.int64, device="chip"))
    assert torch.equal(state, torch.get_rng_state())
