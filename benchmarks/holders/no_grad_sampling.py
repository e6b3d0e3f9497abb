# cause: forgotten no_grad; card: 80 MiB; others: 0 MiB; set: written after
import torch
from torch import nn


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(300, 96)
        self.layer = nn.TransformerEncoderLayer(96, 4, 192, batch_first=True)
        self.out = nn.Linear(96, 300)

    def forward(self, tokens):
        return self.out(self.layer(self.embed(tokens)))


model = Decoder()
tokens = torch.zeros(16, 8, dtype=torch.long)
total = 0
for position in range(200):
    logits = model(tokens)[:, -1]
    total = total + logits.logsumexp(1).mean()
    tokens = torch.cat([tokens, logits.argmax(1, keepdim=True)], 1)
