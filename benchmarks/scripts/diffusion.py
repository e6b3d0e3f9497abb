"""An unconditional diffusion model in the style of diffusers' example: UNet2DModel, DDPM noise, EMA, samples saved."""

import argparse
import os

import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--resolution", type=int, default=32)
parser.add_argument("--train_batch_size", type=int, default=16)
parser.add_argument("--num_epochs", type=int, default=2)
parser.add_argument("--output_dir", default="ddpm")
args = parser.parse_args()


class Pictures(Dataset):
    def __len__(self):
        return 128

    def __getitem__(self, index):
        return {"input": torch.rand(3, args.resolution, args.resolution) * 2 - 1}


device = "cuda"
model = UNet2DModel(
    sample_size=args.resolution, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(64, 128),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
).to(device)  # fmt: skip
ema = EMAModel(model.parameters(), decay=0.999, model_cls=UNet2DModel, model_config=model.config)
ema.to(device)
scheduler = DDPMScheduler(num_train_timesteps=1000)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
loader = DataLoader(Pictures(), batch_size=args.train_batch_size, shuffle=True, num_workers=0)
step = 0
for epoch in range(args.num_epochs):
    model.train()
    for batch in loader:
        clean = batch["input"].to(device)
        noise = torch.randn(clean.shape, dtype=torch.float32, device=clean.device)
        steps = torch.randint(0, scheduler.config.num_train_timesteps, (clean.shape[0],), device=clean.device).long()
        noisy = scheduler.add_noise(clean, noise, steps)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.mse_loss(model(noisy, steps).sample.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(model.parameters())
        step += 1
        print({"loss": loss.detach().item(), "step": step})
    pipeline = DDPMPipeline(unet=model, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    model.eval()
    generator = torch.Generator(device=pipeline.device).manual_seed(0)
    images = pipeline(generator=generator, batch_size=4, num_inference_steps=2, output_type="np").images
    os.makedirs(args.output_dir, exist_ok=True)
    print(images.shape)
    pipeline.save_pretrained(args.output_dir)
