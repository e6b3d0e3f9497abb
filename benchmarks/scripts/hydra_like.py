"""Overrides as hydra has them (`data.batch_size=8 optim.name=sgd`), objects built by their `_target_`, a run folder."""

import copy
import importlib
import os
import random
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CONFIG = """
seed: 0
device: cuda
model:
  _target_: torch.nn.TransformerEncoderLayer
  d_model: 128
  nhead: 4
  dim_feedforward: 256
  batch_first: true
data: {batch_size: 12, length: 48, samples: 120, workers: 2}
optim: {_target_: torch.optim.AdamW, lr: 0.001, weight_decay: 0.01}
trainer: {epochs: 3, amp: true, accumulate: 2, ema: 0.99, log_every: 2}
"""


def instantiate(config, *args, **kwargs):
    config = dict(config)
    module, _, name = config.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name)(*args, **config, **kwargs)


def overridden(config, words):
    for word in words:
        path, _, value = word.partition("=")
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = yaml.safe_load(value)
    return config


class Regressor(nn.Module):
    def __init__(self, layer, width):
        super().__init__()
        self.embed = nn.Linear(16, width)
        self.layers = nn.TransformerEncoder(layer, 3)
        self.head = nn.Linear(width, 1)

    def forward(self, x, padding):
        return self.head(self.layers(self.embed(x), src_key_padding_mask=padding)).squeeze(-1)


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    torch.backends.cudnn.deterministic = True


def main(config):
    run = Path("outputs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    os.chdir(run)
    seed_everything(config["seed"])
    device = torch.device(config["device"] if torch.cuda.is_available() else "cpu")
    data = config["data"]
    x = torch.randn(data["samples"], data["length"], 16)
    padding = torch.arange(data["length"])[None] >= torch.randint(8, data["length"], (data["samples"], 1))
    loader = DataLoader(
        TensorDataset(x, padding, x.sum(-1)), data["batch_size"], shuffle=True, num_workers=data["workers"]
    )
    model = Regressor(instantiate(config["model"]), config["model"]["d_model"]).to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = instantiate(config["optim"], model.parameters())
    trainer = config["trainer"]
    scaler = torch.cuda.amp.GradScaler(enabled=trainer["amp"])
    history = []
    for epoch in range(trainer["epochs"]):
        for number, batch in enumerate(loader):
            inputs, mask, targets = (part.to(device, non_blocking=True) for part in batch)
            with torch.cuda.amp.autocast(enabled=trainer["amp"]):
                outputs = model(inputs, mask)
                loss = nn.functional.smooth_l1_loss(outputs[~mask], targets[~mask])
            scaler.scale(loss / trainer["accumulate"]).backward()
            if (number + 1) % trainer["accumulate"] == 0:
                scaler.unscale_(optimizer)
                norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                with torch.no_grad():
                    for kept, new in zip(average.parameters(), model.parameters(), strict=False):
                        kept.lerp_(new, 1 - trainer["ema"])
            if number % trainer["log_every"] == 0:
                history.append({"epoch": epoch, "loss": loss.item(), "memory": torch.cuda.max_memory_allocated()})
        torch.save({"model": model.state_dict(), "ema": average.state_dict(), "history": history}, "last.ckpt")
    print(f"norm {float(norm):.3f}, loss {np.mean([one['loss'] for one in history]):.4f}")


if __name__ == "__main__":
    main(overridden(yaml.safe_load(CONFIG), sys.argv[1:]))
