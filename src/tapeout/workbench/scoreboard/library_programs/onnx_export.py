"""ONNX: a model on the device exported, run by ONNX Runtime, held against the device's own result."""

import sys
import tempfile
from pathlib import Path

import onnxruntime
import torch

device = sys.argv[1]
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4))
model = model.to(device).eval()
inputs = torch.randn(2, 3, 8, 8)
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    path = str(Path(folder, "model.onnx"))
    torch.onnx.export(model, (inputs.to(device),), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (there,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    here = model(inputs.to(device))
print("output", here.double().square().sum().item())
print("same", float(abs(here.cpu().numpy() - there).max() < 1e-4))
print("device", here.device.type)
