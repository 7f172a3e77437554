"""A training run as people write them, that keeps a checkpoint after every epoch and prints each loss as bits.

    python resumable_training.py FOLDER EPOCH_COUNT [--killed-in-step STEP]

It goes on from the checkpoint in the folder, if there is one. Dropout, activation checkpointing, autocast, gradient
scaling, a schedule of the learning rate, data from a worker process through pinned memory.
"""

import argparse
import os
import signal
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import tapeout  # noqa: F401  the device

STEPS_OF_AN_EPOCH = 3


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(16, 32)
        self.block = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Dropout(0.2))
        self.last = torch.nn.Linear(32, 4)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.last(checkpoint(self.block, self.first(values), use_reentrant=False))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("epoch_count", type=int)
    options.add_argument("--killed-in-step", type=int)
    given = options.parse_args()
    saved_in = given.folder / "checkpoint.pt"

    torch.manual_seed(0)
    model = Model().to("chip")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scaler = torch.amp.GradScaler("chip", growth_interval=2)
    rows = torch.randn(8 * STEPS_OF_AN_EPOCH, 16)
    data = TensorDataset(rows, rows[:, :4].argmax(1))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    first_epoch = 0
    if saved_in.exists():
        saved = torch.load(saved_in, map_location="chip")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        torch.chip.set_rng_state(saved["random"].cpu())
        first_epoch = saved["epoch"] + 1

    for epoch in range(first_epoch, given.epoch_count):
        order = torch.Generator().manual_seed(epoch)
        loader = DataLoader(data, batch_size=8, shuffle=True, generator=order, num_workers=1, pin_memory=True)
        for number, (values, targets) in enumerate(loader):
            assert values.is_pinned()
            step = epoch * STEPS_OF_AN_EPOCH + number
            with torch.autocast("chip", dtype=torch.bfloat16):
                out = model(values.to("chip", non_blocking=True))
                loss = torch.nn.functional.cross_entropy(out, targets.to("chip", non_blocking=True))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if step == given.killed_in_step:
                os.kill(os.getpid(), signal.SIGKILL)
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            print(step, loss.item().hex(), flush=True)
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**states, "random": torch.chip.get_rng_state(), "epoch": epoch}, given.folder / "unfinished.pt")
        (given.folder / "unfinished.pt").replace(saved_in)


if __name__ == "__main__":
    main()
