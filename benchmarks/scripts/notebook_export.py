#!/usr/bin/env python
# coding: utf-8

# # Histology tiles classification
# Baseline from the competition. Score LB 0.96

# In[1]:


import os
import gc
import subprocess
import numpy as np
import pandas as pd
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader
from tqdm.auto import tqdm

print(
    subprocess.run(["nvidia-smi"], capture_output=True, text=True, shell=False).stdout
    if os.path.exists("/usr/bin/nvidia-smi")
    else "no nvidia-smi"
)


# In[2]:


BATCH_SIZE = 48
N_FOLDS = 2
IMG = 96
EPOCHS = 3
LR = 3e-4
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
print(device, torch.cuda.device_count())
if torch.cuda.is_available():
    print(torch.cuda.get_device_name(0), round(torch.cuda.get_device_properties(0).total_memory / 1024**3, 1), "GB")


# In[3]:


os.makedirs("working", exist_ok=True)
os.chdir("working")
df = pd.DataFrame({"id": [f"tile_{i:04d}" for i in range(400)], "label": np.arange(400) % 2})
df["fold"] = np.arange(len(df)) % N_FOLDS
df.to_csv("train.csv", index=False)
df = pd.read_csv("train.csv")
df.head()


# In[4]:


class TileDataset(Dataset):
    def __init__(self, df, train=True):
        self.df = df.reset_index(drop=True)
        self.train = train

    def __len__(self):
        return len(self.df)

    def __getitem__(self, idx):
        row = self.df.loc[idx]
        rng = np.random.default_rng(idx)
        x = rng.integers(0, 256, (IMG, IMG, 3), dtype=np.uint8)
        if self.train and np.random.rand() < 0.5:
            x = x[:, ::-1].copy()
        x = torch.from_numpy(x).permute(2, 0, 1).float() / 255.0
        return {"image": x, "label": torch.tensor(row["label"], dtype=torch.float32), "id": row["id"]}


# In[5]:


class GeM(nn.Module):
    def __init__(self, p=3, eps=1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * p)
        self.eps = eps

    def forward(self, x):
        return F.avg_pool2d(x.clamp(min=self.eps).pow(self.p), (x.size(-2), x.size(-1))).pow(1.0 / self.p)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        chans = [3, 32, 64, 128, 256]
        self.blocks = nn.ModuleList()
        for i, o in zip(chans[:-1], chans[1:]):
            self.blocks.append(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.SiLU(), nn.MaxPool2d(2))
            )
        self.pool = GeM()
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(256, 1)

    def forward(self, x):
        for b in self.blocks:
            x = b(x)
        return self.fc(self.drop(self.pool(x).flatten(1))).squeeze(1)


# In[6]:


oof = np.zeros(len(df))
for fold in range(N_FOLDS):
    tr, va = df[df.fold != fold], df[df.fold == fold]
    train_dl = DataLoader(TileDataset(tr), batch_size=BATCH_SIZE, shuffle=True, num_workers=2, pin_memory=True)
    valid_dl = DataLoader(TileDataset(va, False), batch_size=BATCH_SIZE * 2, num_workers=2)
    model = Net().to(device)
    opt = torch.optim.AdamW(model.parameters(), lr=LR)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=EPOCHS * len(train_dl))
    scaler = torch.cuda.amp.GradScaler()
    best = 0
    for epoch in range(EPOCHS):
        model.train()
        pbar = tqdm(train_dl, total=len(train_dl))
        for step, batch in enumerate(pbar):
            x, y = batch["image"].to(device), batch["label"].to(device)
            with torch.cuda.amp.autocast():
                pred = model(x)
                loss = F.binary_cross_entropy_with_logits(pred, y)
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
            sched.step()
            mem = torch.cuda.memory_reserved() / 1e9
            pbar.set_description(f"fold {fold} ep {epoch} loss {loss.item():.4f} mem {mem:.2f}GB")
        model.eval()
        preds = []
        with torch.no_grad():
            for batch in valid_dl:
                preds.append(model(batch["image"].to(device)).sigmoid().cpu().numpy())
        preds = np.concatenate(preds)
        acc = ((preds > 0.5) == va.label.values[: len(preds)]).mean()
        print("acc", acc)
        if acc >= best:
            best = acc
            oof[va.index] = preds
            torch.save(model.state_dict(), f"fold{fold}.pt")
    del model, opt
    gc.collect()
    torch.cuda.empty_cache()


# In[7]:


df["oof"] = oof
df.to_csv("oof.csv", index=False)
