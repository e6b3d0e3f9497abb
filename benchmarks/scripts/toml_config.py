"""Settings from a TOML file beside the script, made where it is missing: an image-text contrastive model in fp16."""

import argparse
import math
import tomllib
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

DEFAULT = """
[model]
width = 96
depth = 2
patch = 8
image = 64
[train]
batch = 16
steps = 40
lr = 5e-4
warmup = 5
precision = "fp16"
output = "clip_run"
"""


class Tower(nn.Module):
    def __init__(self, width, depth, length):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, width * 4, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x):
        return self.blocks(x + self.position[:, : x.shape[1]]).mean(1)


class Contrastive(nn.Module):
    def __init__(self, settings):
        super().__init__()
        width, patch = settings.width, settings.patch
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.tokens = nn.Embedding(800, width)
        self.image = Tower(width, settings.depth, (settings.image // patch) ** 2)
        self.text = Tower(width, settings.depth, 32)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images, texts):
        image = F.normalize(self.image(self.patches(images).flatten(2).transpose(1, 2)), dim=-1)
        text = F.normalize(self.text(self.tokens(texts)), dim=-1)
        return self.logit_scale.exp() * image @ text.t()


def batches(settings, image):
    while True:
        images = torch.randint(0, 256, (settings.batch, 3, image, image), dtype=torch.uint8)
        yield images, torch.randint(0, 800, (settings.batch, 32))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, default=Path("clip.toml"))
    args = parser.parse_args()
    if not args.config.exists():
        args.config.write_text(DEFAULT)
    settings = {name: SimpleNamespace(**part) for name, part in tomllib.loads(args.config.read_text()).items()}
    train = settings["train"]
    model = Contrastive(settings["model"]).cuda()
    decay = [p for n, p in model.named_parameters() if p.ndim > 1]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}], lr=train.lr, betas=(0.9, 0.98)
    )
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[train.precision]
    scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.float16)
    started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for step, (images, texts) in enumerate(batches(train, settings["model"].image)):
        if step == train.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = train.lr * min(1.0, (step + 1) / train.warmup)
        started.record()
        images = images.cuda(non_blocking=True).float().div_(255).sub_(0.5).div_(0.25)
        with torch.autocast(device_type="cuda", dtype=dtype):
            logits = model(images, texts.cuda(non_blocking=True))
            labels = torch.arange(len(logits), device=logits.device)
            loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels)) / 2
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        ended.record()
        torch.cuda.synchronize()
        if step % 10 == 0:
            accuracy = (logits.argmax(1) == labels).float().mean()
            print(f"{step}: {loss:.4f} {accuracy:.2%} {started.elapsed_time(ended):.1f} ms")
    Path(train.output).mkdir(exist_ok=True)
    torch.save(model.half().state_dict(), Path(train.output) / "final.pt")


if __name__ == "__main__":
    main()
