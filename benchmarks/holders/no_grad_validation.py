# cause: forgotten no_grad; card: 64 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import ConvNet, images


def validate(model):
    correct = 0
    for _ in range(4):
        x, y = images(128)
        correct += (model(x).argmax(1) == y).sum()
    return correct


model = ConvNet()
optimizer = torch.optim.Adam(model.parameters())
for epoch in range(3):
    for step in range(5):
        x, y = images(16)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    validate(model)
