"""Lightning: Trainer.fit, validate and predict with the accelerator named."""

import sys

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    def training_step(self, batch, _):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        print("loss", loss.item())
        return loss

    def validation_step(self, batch, _):
        self.log("validation", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


lightning.seed_everything(1, verbose=False)
data = DataLoader(TensorDataset(torch.randn(32, 8), torch.randint(0, 3, (32,))), batch_size=8)
quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
trainer = lightning.Trainer(accelerator=sys.argv[1], devices=1, max_epochs=1, **quiet)
print("device", trainer.strategy.root_device.type)
model = Classifier()
trainer.fit(model, data)
print("validation", trainer.validate(model, data, verbose=False)[0]["validation"])
