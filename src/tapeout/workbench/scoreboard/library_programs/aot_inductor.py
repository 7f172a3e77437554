"""AOTInductor: an exported program compiled to a package, loaded and run."""

import sys
import tempfile
from pathlib import Path

import torch

device = sys.argv[1]
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU()).to(device).eval()
inputs = torch.randn(4, 8).to(device)
with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    program = torch.export.export(model, (inputs,))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder, "model.pt2")))
    found = torch._inductor.aoti_load_package(package)(inputs)
    print("output", found.double().square().sum().item())
    print("device", found.device.type)
