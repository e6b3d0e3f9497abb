"""PINN for the Burgers equation: double precision, autograd.grad of grad, Adam warm-up then L-BFGS with a closure."""

import time
import numpy as np
import torch
import torch.nn as nn

torch.set_default_dtype(torch.float64)
torch.set_default_device("cuda")
N_f, N_u = 20000, 200
layers = [2, 40, 40, 40, 40, 40, 1]
adam_iters, lbfgs_iters = 2, 500


class PINN(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(a, b) for a, b in zip(layers[:-1], layers[1:])])
        for l in self.linears:
            nn.init.xavier_normal_(l.weight)
            nn.init.zeros_(l.bias)

    def forward(self, x, t):
        h = torch.cat([x, t], dim=1)
        for l in self.linears[:-1]:
            h = torch.tanh(l(h))
        return self.linears[-1](h)


def grad(y, x):
    return torch.autograd.grad(y, x, grad_outputs=torch.ones_like(y), retain_graph=True, create_graph=True)[0]


model = PINN(layers)
x_f = (torch.rand(N_f, 1) * 2 - 1).requires_grad_(True)
t_f = torch.rand(N_f, 1).requires_grad_(True)
x_u, t_u = torch.rand(N_u, 1) * 2 - 1, torch.zeros(N_u, 1)
u_u = -torch.sin(np.pi * x_u)
nu = 0.01 / np.pi
history, it = [], 0


def loss_fn():
    u = model(x_f, t_f)
    u_t, u_x = grad(u, t_f), grad(u, x_f)
    u_xx = grad(u_x, x_f)
    f = u_t + u * u_x - nu * u_xx
    return (f**2).mean() + ((model(x_u, t_u) - u_u) ** 2).mean()


tic = time.time()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for i in range(adam_iters):
    opt.zero_grad()
    loss = loss_fn()
    loss.backward()
    opt.step()
    print(f"Adam {i} loss {loss.item():.3e}")

lbfgs = torch.optim.LBFGS(
    model.parameters(),
    max_iter=lbfgs_iters,
    history_size=50,
    line_search_fn="strong_wolfe",
    tolerance_change=np.finfo(float).eps,
)


def closure():
    global it
    lbfgs.zero_grad()
    loss = loss_fn()
    loss.backward()
    it += 1
    history.append(loss.item())
    if it % 10 == 0:
        print(f"LBFGS {it} {loss.item():.3e} {time.time() - tic:.1f}s")
    return loss


lbfgs.step(closure)
with torch.no_grad():
    xs = torch.linspace(-1, 1, 256)[:, None]
    pred = model(xs, torch.full_like(xs, 0.5)).cpu().numpy()
np.savez("burgers.npz", u=pred, history=np.array(history))
torch.save(model.state_dict(), "pinn.pt")
