# cause: growing list; card: 160 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

model = WideMlp(classes=4000)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
predictions = []
for step in range(1000):
    x, y = rows(32)
    out = model(x)
    loss = F.cross_entropy(out, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    predictions.append(out.detach())
