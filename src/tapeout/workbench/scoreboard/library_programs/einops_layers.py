"""einops: rearrange, reduce, einsum and layers, forward and backward."""

import sys

import torch
from einops import einsum, rearrange, reduce, repeat
from einops.layers.torch import Rearrange

device = sys.argv[1]
torch.manual_seed(1)
images = torch.randn(2, 3, 8, 8).to(device).requires_grad_()
patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4)
net = torch.nn.Sequential(torch.nn.Linear(48, 12), Rearrange("b n (h d) -> b h n d", h=3)).to(device)
heads = net(patches)
scores = einsum(heads, heads, "b h n d, b h m d -> b h n m").softmax(-1)
pooled = reduce(scores, "b h n m -> b h", "max") + repeat(heads.mean((-1, -2)), "b h -> b h")
pooled.sum().backward()
print("pooled", pooled.sum().item())
print("gradient", images.grad.double().square().sum().item())
print("device", pooled.device.type)
