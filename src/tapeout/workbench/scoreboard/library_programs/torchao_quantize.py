"""torchao: weights quantised to int8, and activations with them."""

import sys

import torch
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

device = sys.argv[1]
torch.manual_seed(1)
inputs = torch.randn(8, 64).to(device)
for config in (Int8WeightOnlyConfig(), Int8DynamicActivationInt8WeightConfig()):
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 32)).to(device)
    quantize_(model, config)
    with torch.no_grad():
        for value in model(inputs).double().square().mean(0)[:4].tolist():
            print("output", value)
    print("device", next(model.parameters()).device.type)
