"""Accelerate: a training loop prepared by Accelerator, gradients accumulated and clipped."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

set_seed(1)
accelerator = Accelerator(gradient_accumulation_steps=2)
print("device", accelerator.device.type)
data = TensorDataset(torch.randn(32, 8), torch.randint(0, 3, (32,)))
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=8))
for _ in range(2):
    for inputs, labels in batches:
        with accelerator.accumulate(model):
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        print("loss", loss.item())
