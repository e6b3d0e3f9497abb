# cause: kept graph; card: 64 MiB; others: 0 MiB; set: looked at
import torch
from networks import ConvNet, images
from torch import nn

model = ConvNet()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
total_loss = 0
for step in range(1000):
    x, y = images()
    loss = criterion(model(x), y)
    total_loss = total_loss + loss
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    optimizer.step()
