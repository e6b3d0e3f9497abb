# cause: forgotten no_grad; card: 48 MiB; others: 0 MiB; set: looked at
from networks import ConvNet, images

model = ConvNet(width=32).eval()
scores = []
for size in (4, 8, 16, 32, 64, 128):
    x, _ = images(size)
    scores.append(model(x).softmax(1).max(1).values.mean().item())
