"""timm: a small vision transformer and a small convolutional network, a step of training and inference."""

import sys

import timm
import torch
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2

device = sys.argv[1]
torch.manual_seed(1)
images = torch.randn(2, 3, 64, 64).to(device)
for name in ("test_vit", "test_resnet", "test_efficientnet"):
    size = {"img_size": 64} if "vit" in name else {}
    model = timm.create_model(name, pretrained=False, num_classes=4, **size).to(device)
    optimizer = create_optimizer_v2(model, "adamw", lr=0.001)
    loss = LabelSmoothingCrossEntropy()(model(images), torch.tensor([1, 3]).to(device))
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
    with torch.inference_mode():
        print("output", model.eval()(images).double().square().mean().item())
    print("device", next(model.parameters()).device.type)
