# cause: other processes; card: 160 MiB; others: 90 MiB; set: written after
import torch
from torch import nn

encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 256, batch_first=True), 3)
optimizer = torch.optim.AdamW(encoder.parameters())
for step in range(10):
    x = torch.randn(16, 128, 64)
    loss = encoder(x).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
