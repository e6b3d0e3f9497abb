# cause: growing list; card: 80 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(features=256, hidden=256)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
gradients = []
for step in range(500):
    x, y = rows(64, 256)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    optimizer.step()
