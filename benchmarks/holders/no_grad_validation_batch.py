# cause: forgotten no_grad; card: 80 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import ConvNet, images

model = ConvNet(width=32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
held_out, labels = images(64)


def accuracy_on(inputs, targets):
    guesses = model(inputs)
    return guesses, (guesses.argmax(1) == targets).float().mean().item()


for step in range(30):
    x, y = images(4 + step)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 3 == 2:
        guesses, accuracy = accuracy_on(held_out, labels)
