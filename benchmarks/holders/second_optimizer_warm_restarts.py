# cause: second optimizer; card: 130 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows
from torch.optim.lr_scheduler import CosineAnnealingLR

model = WideMlp(features=600, hidden=1200)
schedulers = []
for restart in range(8):
    optimizer = torch.optim.AdamW(model.parameters())
    schedulers.append(CosineAnnealingLR(optimizer, 5))
    for step in range(5):
        x, y = rows(64, 600)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedulers[-1].step()
