# cause: second network; card: 48 MiB; others: 0 MiB; set: looked at
import torch
import torch.nn.functional as F
from networks import WideMlp, rows

student = WideMlp(hidden=768)
teacher = WideMlp(hidden=1280, depth=3)
teacher.requires_grad_(False)
optimizer = torch.optim.AdamW(student.parameters())
for step in range(20):
    x, y = rows(256)
    with torch.no_grad():
        wanted = teacher(x).softmax(1)
    loss = F.kl_div(student(x).log_softmax(1), wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rest = torch.randn(1 << (20 + step % 4))
