# cause: growing list; card: 64 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet()
optimizer = torch.optim.AdamW(model.parameters())
seen = []
for step in range(1000):
    x, y = images(16, 64)
    seen.append((x, y))
    loss = F.cross_entropy(model(x[:4]), y[:4])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
