"""diffusers: a pipeline of a small U-Net and the DDIM scheduler, and one step of its training."""

import sys

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

device = sys.argv[1]
torch.manual_seed(1)
blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
unet = UNet2DModel(8, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=16, **blocks)
pipeline = DDIMPipeline(unet, DDIMScheduler(num_train_timesteps=10)).to(device)
print("device", pipeline.device.type)
pipeline.set_progress_bar_config(disable=True)
picture = pipeline(batch_size=2, generator=torch.Generator().manual_seed(1), num_inference_steps=3, output_type="np")
for image in picture.images:
    print("mean", float(image.mean()))
noise = torch.randn(2, 3, 8, 8).to(device)
loss = torch.nn.functional.mse_loss(pipeline.unet(noise, 3).sample, noise)
loss.backward()
print("loss", loss.item())
print("gradient", unet.conv_in.weight.grad.double().square().sum().item())
