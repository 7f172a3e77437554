"""A training script as written for a GPU: nothing in it knows of the chip. Prints its losses."""

import io

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

assert torch.cuda.is_available() and torch.cuda.device_count() == 1
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.benchmark = True
torch.manual_seed(0)
torch.cuda.manual_seed_all(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
properties = torch.cuda.get_device_properties(0)
assert properties.total_memory > 0 and properties.multi_processor_count > 0 and torch.cuda.get_device_name()
torch.cuda.set_device(device)

data = TensorDataset(torch.randn(32, 8), torch.randint(0, 4, (32,)))
loader = DataLoader(data, batch_size=8, pin_memory=True)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4)).cuda()
assert next(model.parameters()).is_cuda
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
scaler = torch.cuda.amp.GradScaler()
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
stream = torch.cuda.Stream()
start.record()
losses = []
for _ in range(3):
    for inputs, targets in loader:
        inputs, targets = inputs.to(device, non_blocking=True), targets.cuda(non_blocking=True)
        with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
with torch.cuda.stream(stream):
    side = torch.ones(3, device="cuda") * 2
torch.cuda.current_stream().wait_stream(stream)
side.record_stream(torch.cuda.current_stream())
end.record()
torch.cuda.synchronize()
assert start.elapsed_time(end) >= 0
torch.cuda.nvtx.range_push("end")
torch.cuda.nvtx.range_push("again")
file = io.BytesIO()
torch.save(model.state_dict(), file)
file.seek(0)
state = torch.load(file, map_location="cuda")
assert state["0.weight"].is_cuda
file.seek(0)
assert not torch.load(file, map_location="cpu")["0.weight"].is_cuda
with torch.device("cuda"):
    assert torch.zeros(2).is_cuda
assert torch.zeros_like(torch.ones(2), device="cuda:0").is_cuda and torch.tensor([1.0], device=device).is_cuda
generator = torch.Generator(device="cuda").manual_seed(1)
assert torch.rand(2, device="cuda", generator=generator).is_cuda
assert torch.cuda.default_generators[0].device.type == "chip" and len(torch.cuda.default_generators) == 1
assert torch.cuda.max_memory_allocated() >= torch.cuda.memory_allocated() > 0
torch.cuda.reset_peak_memory_stats()
torch.cuda.empty_cache()
graph, static = torch.cuda.CUDAGraph(), torch.full((3,), 5.0, device="cuda")
start.record()
with torch.cuda.graph(graph):
    doubled = static * 2
end.record()
torch.cuda.synchronize()
assert start.elapsed_time(end) == 0
graph.replay()
end.record()
torch.cuda.synchronize()
assert start.elapsed_time(end) > 0
assert doubled.eq(10).all()
odd = torch.compile(torch.matmul)(torch.ones(300, 63, device="cuda"), torch.ones(63, 10, device="cuda"))
assert odd.eq(63).all()  # sizes that Inductor pads on GPUs
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
    model(torch.zeros(4, 8, device="cuda"))
assert sum(row.device_time_total for row in profile.key_averages()) > 0
with torch.autograd.profiler.profile(use_device="cuda") as profile:
    model(torch.zeros(4, 8, device="cuda"))
assert sum(row.device_time_total for row in profile.key_averages()) > 0


@torch.compile
def compiled(x):
    return (x + torch.ones(4, device="cuda")).relu()


assert compiled(torch.zeros(4).cuda()).sum().item() == 4
print("losses", losses[0], losses[-1])
