"""Train a small classifier on a GPU: an ordinary script, in which nothing knows of the chip."""

import argparse
import copy
import json
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--amp", choices=["none", "fp16", "bf16"], default="fp16")
    parser.add_argument("--ema-decay", type=float, default=0.9)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--resume", default="")
    parser.add_argument("--output", default="checkpoint.pt")
    parser.add_argument("--metrics", default="metrics.json")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    torch.backends.cudnn.benchmark = True


class Blobs(Dataset):
    """Points around the corners of a cube, one corner a class."""

    def __init__(self, size, classes, seed):
        generator = np.random.default_rng(seed)
        self.targets = generator.integers(0, classes, size)
        centres = np.random.default_rng(1234).normal(size=(classes, 24))
        self.inputs = (centres[self.targets] + 0.3 * generator.normal(size=(size, 24))).astype(np.float32)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.from_numpy(self.inputs[index]), int(self.targets[index])


class Classifier(nn.Module):
    def __init__(self, classes, width=32):
        super().__init__()
        self.embed = nn.Linear(24, width)
        self.norm = nn.LayerNorm(width)
        self.block = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.embed(x)
        return self.head(x + self.block(self.norm(x)))


@torch.no_grad()
def update_ema(ema, model, decay):
    for average, current in zip(ema.parameters(), model.parameters(), strict=True):
        average.lerp_(current, 1 - decay)


@torch.inference_mode()
def evaluate(model, loader, device):
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for inputs, targets in loader:
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        logits = model(inputs)
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        correct += (logits.argmax(dim=1) == targets).sum().item()
        count += targets.size(0)
    return loss / count, correct / count


def main():
    args = parse_args()
    seed_everything(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = DataLoader(Blobs(64, args.classes, 1), batch_size=args.batch_size, shuffle=True, drop_last=True,
                       num_workers=args.workers, pin_memory=True, persistent_workers=args.workers > 0)  # fmt: skip
    test = DataLoader(Blobs(40, args.classes, 2), batch_size=args.batch_size, pin_memory=True)
    model = Classifier(args.classes).to(device)
    ema = copy.deepcopy(model).requires_grad_(False)
    decay = [p for p in model.parameters() if p.dim() > 1]
    groups = [{"params": decay, "weight_decay": args.weight_decay},
              {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95))
    steps = args.epochs * len(train)

    def cosine(step):
        if step < args.warmup:
            return (step + 1) / args.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - args.warmup) / max(1, steps - args.warmup)))

    scheduler = LambdaLR(optimizer, cosine)
    dtype = {"none": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.amp]
    scaler = torch.cuda.amp.GradScaler(init_scale=2.0**10, enabled=args.amp == "fp16" and device.type == "cuda")
    start_epoch, history = 0, []
    if args.resume and os.path.exists(args.resume):
        state = torch.load(args.resume, map_location=device)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        scaler.load_state_dict(state["scaler"])
        start_epoch = state["epoch"] + 1
    step_model = torch.compile(model) if args.compile else model
    for epoch in range(start_epoch, args.epochs):
        step_model.train()
        started = time.perf_counter()
        for inputs, targets in train:
            inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            with torch.autocast(device_type=device.type, dtype=dtype, enabled=args.amp != "none"):
                loss = F.cross_entropy(step_model(inputs), targets, label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            update_ema(ema, model, args.ema_decay)
            history.append([loss.item(), norm.item()])
        torch.save({"model": model.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(), "scaler": scaler.state_dict(), "epoch": epoch},
                   args.output)  # fmt: skip
        loss, accuracy = evaluate(ema, test, device)
        print(f"epoch {epoch}: loss {loss:.4f} accuracy {accuracy:.3f} in {time.perf_counter() - started:.2f} s")
    with open(args.metrics, "w") as file:
        json.dump({"device": next(model.parameters()).is_cuda, "history": history, "loss": loss}, file)


if __name__ == "__main__":
    main()
