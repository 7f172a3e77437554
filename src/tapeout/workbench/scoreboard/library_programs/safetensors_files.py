"""safetensors: tensors saved from the device and loaded onto it."""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

device = sys.argv[1]
torch.manual_seed(1)
types = (torch.float32, torch.bfloat16, torch.int64)
tensors = {str(dtype): (torch.randn(4, 6) * 10).to(dtype).to(device) for dtype in types}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "tensors.safetensors")
    save_file(tensors, path)
    for name, tensor in load_file(path, device=device).items():
        print(name, tensor.double().sum().item())
        print("device", tensor.device.type)
    with safe_open(path, framework="pt", device=device) as opened:
        for name in opened.keys():  # noqa: SIM118  (no mapping)
            print(name, opened.get_slice(name)[1:3].double().sum().item())
