"""datasets: rows formatted as tensors on the device."""

import sys

import torch
from datasets import Dataset

device = sys.argv[1]
data = Dataset.from_dict({"x": [[float(i), i * 0.5] for i in range(8)], "y": list(range(8))})
data = data.with_format("torch", device=device)
weight = torch.tensor([[0.5], [2.0]]).to(device)
for batch in data.iter(batch_size=4):
    print("output", (batch["x"] @ weight).sum().item())
    print("label", float(batch["y"].sum().item()))
    print("device", batch["x"].device.type)
