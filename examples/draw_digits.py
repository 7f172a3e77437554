"""A small diffusion model learns to draw digits: a U-Net trained on scikit-learn's 1797 digits of 8 x 8 pixels.

    python examples/draw_digits.py --picture digits.png

Training teaches it to guess the noise in a noisy digit (Ho et al., "Denoising Diffusion Probabilistic Models",
arXiv:2006.11239); drawing starts from nothing but noise and takes the guessed noise away, bit by bit. All random
numbers come from the host's generator, so that the losses can be compared between devices.
"""

import argparse
import math
import struct
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F

STEP_COUNT = 100
DIGIT_COUNT = 10


def load() -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 1, 8, 8) from -1 to 1, and which digit each is."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return images, torch.tensor(digits.target)


def kept_share() -> torch.Tensor:
    """How much of the digit is left after each step: the cosine schedule."""
    time = torch.linspace(0, 1, STEP_COUNT + 1)
    share = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (share / share[0])[1:].clamp(min=1e-4)


class Block(torch.nn.Module):
    """Two convolutions around what the step and the digit have to say, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, context: int):
        super().__init__()
        self.first = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = torch.nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norms = torch.nn.ModuleList(torch.nn.GroupNorm(4, outputs) for _ in range(2))
        self.told = torch.nn.Linear(context, outputs)
        self.shortcut = torch.nn.Conv2d(inputs, outputs, 1)

    def forward(self, image: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        hidden = F.silu(self.norms[0](self.first(image))) + self.told(context)[:, :, None, None]
        return F.silu(self.norms[1](self.second(hidden))) + self.shortcut(image)


class UNet(torch.nn.Module):
    """The noise in a noisy digit, given the step and which digit it is to be."""

    def __init__(self, width: int = 24):
        super().__init__()
        context = 2 * width
        self.step = torch.nn.Embedding(STEP_COUNT, context)
        self.digit = torch.nn.Embedding(DIGIT_COUNT, context)
        self.down = Block(1, width, context)
        self.shrink = torch.nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.middle = Block(width, 2 * width, context)
        self.grow = torch.nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up = Block(2 * width, width, context)
        self.out = torch.nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: torch.Tensor, step: torch.Tensor, digit: torch.Tensor) -> torch.Tensor:
        context = F.silu(self.step(step) + self.digit(digit))
        fine = self.down(image, context)
        coarse = self.middle(self.shrink(fine), context)
        return self.out(self.up(torch.cat([fine, self.grow(coarse)], 1), context))


def train(
    model: UNet, images: torch.Tensor, digits: torch.Tensor, *, step_count: int, batch_size: int = 64
) -> list[float]:
    """Losses, step by step."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    chance = torch.Generator().manual_seed(1)
    share = kept_share()
    losses = []
    for _ in range(step_count):
        rows = torch.randint(len(images), (batch_size,), generator=chance)
        step = torch.randint(STEP_COUNT, (batch_size,), generator=chance)
        noise = torch.randn(batch_size, 1, 8, 8, generator=chance)
        kept = share[step].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * images[rows] + (1 - kept).sqrt() * noise
        guess = model(noisy.to(device), step.to(device), digits[rows].to(device))
        loss = F.mse_loss(guess, noise.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


@torch.no_grad()
def draw(model: UNet, digits: torch.Tensor) -> torch.Tensor:
    """(count, 8, 8) on the host, from 0 to 1: a drawing of each digit asked for."""
    device = next(model.parameters()).device
    chance = torch.Generator().manual_seed(2)
    share = kept_share()
    image = torch.randn(len(digits), 1, 8, 8, generator=chance).to(device)
    asked = digits.to(device)
    for step in reversed(range(STEP_COUNT)):
        guess = model(image, torch.full((len(digits),), step, device=device), asked)
        now, before = float(share[step]), float(share[step - 1]) if step else 1.0
        clean = ((image - math.sqrt(1 - now) * guess) / math.sqrt(now)).clamp(-1, 1)
        keep = now / before
        mean = (math.sqrt(before) * (1 - keep) * clean + math.sqrt(keep) * (1 - before) * image) / (1 - now)
        image = mean
        if step:
            spread = math.sqrt((1 - before) / (1 - now) * (1 - keep))
            image = mean + spread * torch.randn(image.shape, generator=chance).to(device)
    return (image.squeeze(1).cpu() + 1) / 2


def write_picture(path: Path, images: torch.Tensor, columns: int, scale: int = 6) -> None:
    """Images side by side as a grey PNG, dark on white, each pixel `scale` pixels wide."""
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    grid = torch.cat([torch.cat([F.pad(image, (1, 1, 1, 1)) for image in row], 1) for row in rows])
    grey = (255 * (1 - grid.clamp(0, 1))).to(torch.uint8).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    lines = b"".join(b"\0" + bytes(line.tolist()) for line in grey)
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="chip")
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--picture", type=Path)
    given = options.parse_args()
    if given.device == "chip":
        import tapeout  # noqa: F401  the device

    images, digits = load()
    torch.manual_seed(0)
    model = UNet().to(given.device)
    losses = train(model, images, digits, step_count=given.steps)
    last = losses[-20:]
    print(f"loss {losses[0]:.3f} at first, {sum(last) / len(last):.3f} at last")
    if given.picture:
        write_picture(given.picture, draw(model, torch.arange(4 * DIGIT_COUNT) % DIGIT_COUNT), columns=DIGIT_COUNT)


if __name__ == "__main__":
    main()
