# cause: other processes; card: 64 MiB; others: 30 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet()
optimizer = torch.optim.AdamW(model.parameters())
for step in range(10):
    x, y = images(24)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
