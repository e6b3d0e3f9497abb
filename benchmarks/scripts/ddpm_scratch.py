"""Denoising diffusion from scratch: Unet with attention, EMA, `while step < train_num_steps`, samples to a folder."""

import copy
import math
from multiprocessing import cpu_count
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T, utils
from tqdm.auto import tqdm


def exists(x):
    return x is not None


def cycle(dl):
    while True:
        for data in dl:
            yield data


def num_to_groups(num, divisor):
    groups, remainder = divmod(num, divisor)
    return [divisor] * groups + ([remainder] if remainder else [])


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        device = x.device
        half = self.dim // 2
        emb = torch.exp(torch.arange(half, device=device) * -(math.log(10000) / (half - 1)))
        emb = x[:, None] * emb[None, :]
        return torch.cat((emb.sin(), emb.cos()), dim=-1)


class Block(nn.Module):
    def __init__(self, dim, dim_out, time_dim=None):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, dim_out * 2)) if exists(time_dim) else None
        self.proj = nn.Conv2d(dim, dim_out, 3, padding=1)
        self.norm = nn.GroupNorm(8, dim_out)
        self.res = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x, t=None):
        h = self.norm(self.proj(x))
        if exists(self.mlp):
            scale, shift = self.mlp(t)[:, :, None, None].chunk(2, dim=1)
            h = h * (scale + 1) + shift
        return F.silu(h) + self.res(x)


class LinearAttention(nn.Module):
    def __init__(self, dim, heads=4, dim_head=32):
        super().__init__()
        self.heads, self.scale = heads, dim_head**-0.5
        self.to_qkv = nn.Conv2d(dim, heads * dim_head * 3, 1, bias=False)
        self.to_out = nn.Conv2d(heads * dim_head, dim, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, self.heads, -1, h * w) for t in self.to_qkv(x).chunk(3, dim=1))
        q, k = q.softmax(dim=-2) * self.scale, k.softmax(dim=-1)
        context = torch.einsum("b h d n, b h e n -> b h d e", k, v / (h * w))
        out = torch.einsum("b h d e, b h d n -> b h e n", context, q)
        return self.to_out(out.reshape(b, -1, h, w)) + x


class Unet(nn.Module):
    def __init__(self, dim=32, dim_mults=(1, 2, 4), channels=3):
        super().__init__()
        self.channels = channels
        dims = [dim, *[dim * m for m in dim_mults]]
        pairs = list(zip(dims[:-1], dims[1:]))
        td = dim * 4
        self.time_mlp = nn.Sequential(SinusoidalPosEmb(dim), nn.Linear(dim, td), nn.GELU(), nn.Linear(td, td))
        self.init = nn.Conv2d(channels, dim, 7, padding=3)
        self.downs = nn.ModuleList(
            [nn.ModuleList([Block(a, b, td), LinearAttention(b), nn.Conv2d(b, b, 4, 2, 1)]) for a, b in pairs]
        )
        self.mid = Block(dims[-1], dims[-1], td)
        self.ups = nn.ModuleList(
            [
                nn.ModuleList([nn.ConvTranspose2d(b, b, 4, 2, 1), Block(b * 2, a, td), LinearAttention(a)])
                for a, b in reversed(pairs)
            ]
        )
        self.final = nn.Conv2d(dim, channels, 1)

    def forward(self, x, time):
        t = self.time_mlp(time)
        x, hs = self.init(x), []
        for block, attn, down in self.downs:
            x = attn(block(x, t))
            hs.append(x)
            x = down(x)
        x = self.mid(x, t)
        for up, block, attn in self.ups:
            x = attn(block(torch.cat((up(x), hs.pop()), dim=1), t))
        return self.final(x)


def extract(a, t, x_shape):
    return a.gather(-1, t).reshape(t.shape[0], *((1,) * (len(x_shape) - 1)))


class GaussianDiffusion(nn.Module):
    def __init__(self, model, *, image_size, timesteps=1000):
        super().__init__()
        self.model, self.image_size, self.num_timesteps = model, image_size, timesteps
        betas = torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        reg = lambda name, val: self.register_buffer(name, val.to(torch.float32))
        reg("betas", betas)
        reg("sqrt_alphas_cumprod", torch.sqrt(alphas_cumprod))
        reg("sqrt_one_minus_alphas_cumprod", torch.sqrt(1.0 - alphas_cumprod))
        reg("sqrt_recip_alphas", torch.sqrt(1.0 / (1.0 - betas)))

    @torch.no_grad()
    def sample(self, batch_size=16):
        device = self.betas.device
        img = torch.randn((batch_size, self.model.channels, self.image_size, self.image_size), device=device)
        for i in tqdm(reversed(range(self.num_timesteps)), desc="sampling", total=self.num_timesteps):
            t = torch.full((batch_size,), i, device=device, dtype=torch.long)
            eps = self.model(img, t)
            img = extract(self.sqrt_recip_alphas, t, img.shape) * (img - extract(self.betas, t, img.shape) * eps)
            img = img + torch.randn_like(img) * extract(self.betas, t, img.shape).sqrt()
        return img

    def forward(self, x):
        b, device = x.shape[0], x.device
        t = torch.randint(0, self.num_timesteps, (b,), device=device).long()
        x = x * 2 - 1
        noise = torch.randn_like(x)
        noisy = (
            extract(self.sqrt_alphas_cumprod, t, x.shape) * x
            + extract(self.sqrt_one_minus_alphas_cumprod, t, x.shape) * noise
        )
        return F.l1_loss(noise, self.model(noisy, t))


class ImageFolder(Dataset):
    def __init__(self, folder, image_size):
        self.paths = sorted(p for ext in ("jpg", "png") for p in Path(folder).glob(f"**/*.{ext}"))
        self.transform = T.Compose(
            [T.Resize(image_size), T.RandomHorizontalFlip(), T.CenterCrop(image_size), T.ToTensor()]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


class Trainer:
    def __init__(
        self,
        diffusion_model,
        folder,
        *,
        train_batch_size=16,
        train_lr=2e-4,
        train_num_steps=10000,
        gradient_accumulate_every=2,
        save_and_sample_every=1000,
        results_folder="./results",
    ):
        self.model = diffusion_model
        self.ema_model = copy.deepcopy(diffusion_model)
        self.train_num_steps, self.every = train_num_steps, gradient_accumulate_every
        self.save_and_sample_every = save_and_sample_every
        dl = DataLoader(
            ImageFolder(folder, diffusion_model.image_size),
            batch_size=train_batch_size,
            shuffle=True,
            pin_memory=True,
            num_workers=cpu_count(),
        )
        self.dl = cycle(dl)
        self.opt = Adam(diffusion_model.parameters(), lr=train_lr, betas=(0.9, 0.99))
        self.scaler = torch.cuda.amp.GradScaler(enabled=True)
        self.results_folder = Path(results_folder)
        self.results_folder.mkdir(exist_ok=True)
        self.step = 0

    def update_ema(self, beta=0.995):
        for cur, ma in zip(self.model.parameters(), self.ema_model.parameters()):
            ma.data = ma.data * beta + (1 - beta) * cur.data

    def save(self, milestone):
        torch.save(
            {"step": self.step, "model": self.model.state_dict(), "ema": self.ema_model.state_dict()},
            str(self.results_folder / f"model-{milestone}.pt"),
        )

    def train(self):
        with tqdm(initial=self.step, total=self.train_num_steps) as pbar:
            while self.step < self.train_num_steps:
                total_loss = 0.0
                for _ in range(self.every):
                    data = next(self.dl).cuda()
                    with torch.cuda.amp.autocast(enabled=True):
                        loss = self.model(data) / self.every
                        total_loss += loss.item()
                    self.scaler.scale(loss).backward()
                pbar.set_description(f"loss: {total_loss:.4f}")
                self.scaler.step(self.opt)
                self.scaler.update()
                self.opt.zero_grad()
                if self.step % 10 == 0:
                    self.update_ema()
                if self.step != 0 and self.step % self.save_and_sample_every == 0:
                    images = torch.cat([self.ema_model.sample(batch_size=n) for n in num_to_groups(25, 16)])
                    utils.save_image(images, str(self.results_folder / f"sample-{self.step}.png"), nrow=5)
                    self.save(self.step)
                self.step += 1
                pbar.update(1)


if __name__ == "__main__":
    data_dir = Path("flowers")
    if not data_dir.exists():
        data_dir.mkdir()
        for i in range(40):
            Image.effect_noise((72, 80), 40 + i).convert("RGB").save(data_dir / f"{i:03d}.png")
    model = Unet(dim=32, dim_mults=(1, 2, 4))
    diffusion = GaussianDiffusion(model, image_size=64, timesteps=1000).cuda()
    Trainer(diffusion, data_dir, train_batch_size=16).train()
