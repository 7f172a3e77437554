"""torch.export: a program with a dynamic batch, saved, loaded, run, and compiled."""

import sys
import tempfile
from pathlib import Path

import torch

device = sys.argv[1]
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16)).to(device).eval()
inputs = torch.randn(4, 8).to(device)
program = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
with tempfile.TemporaryDirectory() as folder:
    torch.export.save(program, Path(folder, "model.pt2"))
    module = torch.export.load(Path(folder, "model.pt2")).module()
for batch in (4, 7):
    found = module(torch.linspace(-1, 1, batch * 8).reshape(batch, 8).to(device))
    print("output", found.double().square().sum().item())
print("compiled", torch.compile(module)(inputs).double().abs().sum().item())
print("device", found.device.type)
