# cause: second optimizer; card: 120 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import WideMlp, rows


class Stepper:
    def __init__(self, model, rate):
        self.optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def apply(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


model = WideMlp(features=700, hidden=1300)
fast, slow = Stepper(model, 1e-2), Stepper(model, 1e-4)
for step in range(14):
    x, y = rows(16 << step, 700)
    stepper = slow if step % 2 else fast
    stepper.apply(F.cross_entropy(model(x), y))
