# cause: kept graph; card: 80 MiB; others: 0 MiB; set: written after
import torch
from torch import nn

encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2)
head = nn.Linear(64, 200)
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()])
smooth = None
for step in range(500):
    tokens = torch.randn(8, 64, 64)
    target = torch.randint(0, 200, (8, 64))
    loss = nn.functional.cross_entropy(head(encoder(tokens)).flatten(0, 1), target.flatten())
    smooth = loss if smooth is None else 0.9 * smooth + 0.1 * loss
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    optimizer.step()
