# cause: other processes; card: 200 MiB; others: 120 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(features=1024, hidden=1500)
optimizer = torch.optim.AdamW(model.parameters())
for step in range(10):
    x, y = rows(512, 1024)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
