"""torchmetrics: accuracy, AUROC, F1 and mean squared error, accumulated on the device."""

import sys

import torch
from torchmetrics import MeanSquaredError
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassF1Score

device = sys.argv[1]
torch.manual_seed(1)
metrics = (MulticlassAccuracy(4), MulticlassF1Score(4), BinaryAUROC(), MeanSquaredError())
accuracy, f1, auroc, squared = (metric.to(device) for metric in metrics)
for _ in range(3):
    scores, labels = torch.randn(16, 4).to(device), torch.randint(0, 4, (16,)).to(device)
    accuracy.update(scores, labels)
    f1.update(scores, labels)
    auroc.update(scores[:, 0].sigmoid(), (labels > 1).long())
    squared.update(scores[:, 1].contiguous(), scores[:, 2].contiguous())
for metric in (accuracy, f1, auroc, squared):
    print(type(metric).__name__, metric.compute().item())
print("device", squared.compute().device.type)
