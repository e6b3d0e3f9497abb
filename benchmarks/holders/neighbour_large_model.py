# cause: other processes; card: 96 MiB; others: 40 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(hidden=1536)
optimizer = torch.optim.Adam(model.parameters())
for step in range(10):
    x, y = rows()
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
