# cause: forgotten no_grad; card: 96 MiB; others: 0 MiB; set: written after
import torch
import torch.nn.functional as F
from networks import ConvNet, images

teacher = ConvNet(width=48).eval()
student = ConvNet(width=8)
optimizer = torch.optim.Adam(student.parameters())
for step in range(20):
    x, _ = images(8 + 4 * step)
    wanted = teacher(x)
    loss = F.mse_loss(student(x), wanted.detach())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
