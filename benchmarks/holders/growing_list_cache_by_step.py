# cause: growing list; card: 96 MiB; others: 0 MiB; set: written after
import torch
from torch import nn


class Trainer:
    def __init__(self):
        self.net = nn.LSTM(32, 128, batch_first=True)
        self.head = nn.Linear(128, 5)
        self.optimizer = torch.optim.RMSprop([*self.net.parameters(), *self.head.parameters()])
        self.embeddings = {}

    def step(self, number):
        x, y = torch.randn(32, 20, 32), torch.randint(0, 5, (32,))
        hidden, _ = self.net(x)
        loss = nn.functional.cross_entropy(self.head(hidden[:, -1]), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.embeddings[number] = hidden.detach()


trainer = Trainer()
for number in range(2000):
    trainer.step(number)
