# cause: kept graph; card: 48 MiB; others: 0 MiB; set: looked at
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(500, 64)
        self.cell = nn.GRUCell(64, 256)
        self.out = nn.Linear(256, 500)

    def forward(self, tokens, hidden):
        logits = []
        for t in range(tokens.shape[1]):
            hidden = self.cell(self.embed(tokens[:, t]), hidden)
            logits.append(self.out(hidden))
        return torch.stack(logits, 1), hidden


model = Tagger()
optimizer = torch.optim.Adam(model.parameters())
hidden = torch.zeros(16, 256)
for step in range(1000):
    tokens = torch.randint(0, 500, (16, 8))
    logits, hidden = model(tokens, hidden)
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data - 0.01 * parameter.grad
