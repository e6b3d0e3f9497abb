# cause: kept graph; card: 64 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet()
optimizer = torch.optim.Adam(model.parameters())
losses = []
for step in range(1000):
    x, y = images()
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss + 0.1 * model(x).pow(2).mean())
