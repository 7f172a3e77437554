"""What scripts written for a GPU are in the habit of doing, each with what it must come to on the chip."""

import io
import warnings

import torch
import torch.nn as nn

warnings.simplefilter("ignore")
chip = torch.device("chip", 0)

layer = nn.Linear(3, 2)
parameter, before = layer.weight, layer.weight.detach().clone()
for p in layer.parameters():
    p.data = p.data.cuda()
assert layer.weight is parameter and parameter.is_cuda and parameter.requires_grad and parameter.is_leaf
assert torch.equal(parameter.data.cpu(), before)
parameter.data.mul_(2)
assert torch.equal(parameter.cpu(), before * 2)
layer(torch.ones(1, 3, device="cuda")).sum().backward()
assert layer.weight.grad.is_cuda
buffer = torch.zeros(2)
buffer.data = torch.ones(2).cuda()
assert buffer.is_cuda and buffer.tolist() == [1.0, 1.0]

a = torch.cuda.FloatTensor([1, 2])
assert a.is_cuda and a.dtype == torch.float32 and a.tolist() == [1.0, 2.0]
assert torch.cuda.LongTensor(2, 3).shape == (2, 3) and torch.cuda.HalfTensor().numel() == 0
assert isinstance(a, torch.cuda.FloatTensor) and not isinstance(a, torch.cuda.HalfTensor)
assert not isinstance(torch.ones(1), torch.cuda.FloatTensor)
assert a.type() == "torch.cuda.FloatTensor" and torch.ones(1).type() == "torch.FloatTensor"
assert torch.ones(1).type(torch.cuda.HalfTensor).type() == "torch.cuda.HalfTensor"
assert torch.ones(1).type("torch.cuda.LongTensor").device == chip and a.type(torch.float64).dtype == torch.float64
torch.set_default_tensor_type("torch.cuda.FloatTensor")
assert torch.zeros(2).is_cuda and nn.Linear(2, 2).weight.is_cuda
torch.set_default_tensor_type(torch.FloatTensor)
assert not torch.zeros(2).is_cuda

file = io.BytesIO()
torch.save({"w": torch.arange(3.0), "i": torch.arange(2)}, file)
for location in (lambda storage, _: storage.cuda(0), lambda storage, _: storage.cuda(), "cuda:0", {"cpu": "cuda:0"}):
    file.seek(0)
    loaded = torch.load(file, map_location=location)
    assert loaded["w"].is_cuda and loaded["w"].tolist() == [0.0, 1.0, 2.0] and loaded["i"].tolist() == [0, 1]
assert torch.arange(3.0).untyped_storage().cuda().is_cuda and not torch.arange(3.0).untyped_storage().is_cuda

model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
expected = model(torch.ones(2, 3))
for parallel in (nn.DataParallel(model).cuda(), nn.DataParallel(model, device_ids=[0], output_device=0)):
    out = parallel(torch.ones(2, 3))
    torch.testing.assert_close(out.cpu(), expected)
    out.sum().backward()
assert all(name.startswith("module.") for name in parallel.state_dict())

major, minor = map(int, torch.version.cuda.split("."))
assert major >= 11 and torch.version.hip is None
with torch.cuda._DeviceGuard(0), torch.cuda.device(0), torch.cuda.device("cuda:0"), torch.cuda.device_of(a):
    assert isinstance(torch._C._cuda_getCurrentRawStream(torch.cuda.current_device()), int)
properties = torch.cuda.get_device_properties("cuda:0")
assert properties.major >= 1 and properties.shared_memory_per_block > 0 and not properties.is_integrated
assert torch.cuda.get_device_capability(torch.device("cuda")) == (8, 0) and torch.cuda.get_arch_list() == []
assert torch.cuda.memory_allocated("cuda") == torch.cuda.memory_allocated(0) > 0
for dump in (torch.cuda.memory._dump_snapshot, torch.cuda.memory._snapshot):
    try:
        dump()
        raise AssertionError("it has no snapshot to give")
    except Exception as refused:
        assert "memory_stats() counts, and `tapeout profile` shows what ran" in str(refused), refused

with torch.cuda.amp.autocast(dtype=torch.float16), torch.cuda.nvtx.range("products"):
    assert (torch.ones(2, 2).cuda() @ torch.ones(2, 2).cuda()).dtype == torch.float16
scaler = torch.cuda.amp.GradScaler(enabled=True)
assert scaler.scale(torch.ones(1).cuda()).item() == scaler.get_scale()
torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
torch.set_float32_matmul_precision("high")
torch.backends.cuda.enable_flash_sdp(True)
with torch.backends.cuda.sdp_kernel(enable_flash=True, enable_math=True, enable_mem_efficient=True):
    q = torch.ones(1, 1, 2, 4).cuda()
    assert nn.functional.scaled_dot_product_attention(q, q, q).is_cuda

pinned = torch.empty(4, pin_memory=True).fill_(3)
assert pinned.is_pinned() and torch.ones(2).pin_memory().is_pinned()
stream = torch.cuda.Stream(device="cuda:0", priority=-1)
with torch.cuda.stream(stream):
    moved = pinned.to("cuda", non_blocking=True)
    event = stream.record_event()
torch.cuda.current_stream().wait_event(event)
stream.synchronize()
assert stream.query() and event.query() and moved.tolist() == [3.0] * 4
back = torch.empty(4).pin_memory()
back.copy_(moved, non_blocking=True)
torch.cuda.synchronize(torch.device("cuda"))
assert back.tolist() == [3.0] * 4
state = torch.cuda.get_rng_state("cuda:0")
first = torch.rand(2, device="cuda")
torch.cuda.set_rng_state(state, torch.device("cuda", 0))
assert torch.equal(first, torch.rand(2, device="cuda"))
with torch.random.fork_rng(devices=[0]):
    torch.rand(1, device="cuda")
assert torch.cuda.is_initialized() and torch.cuda.get_sync_debug_mode() == 0
print("done")
