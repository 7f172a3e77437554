"""torchvision: a network, pictures prepared on the device."""

import sys

import torch
import torchvision
from torchvision.transforms import v2

device = sys.argv[1]
torch.manual_seed(1)
images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8).to(device)
prepare = v2.Compose([v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
inputs = prepare(images)
print("prepared", inputs.double().square().mean().item())
model = torchvision.models.mobilenet_v3_small(num_classes=4).to(device).eval()
loss = model(inputs).square().mean()
loss.backward()
print("loss", loss.item())
print("device", loss.device.type)
