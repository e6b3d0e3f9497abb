"""A transformer language model written out by hand: RMSNorm, rotary positions, plain attention, SwiGLU, its own AdamW.

The operations of a student's model (github.com/Wedsonlin/assignment2-systems, "medium"), whose step was recorded on a
card. B batch, T tokens, D width, N heads, H width of a head.
"""

import math

import torch
from torch import Tensor, nn

VOCABULARY, T, D, N, FEED_FORWARD, LAYERS = 10_000, 512, 1024, 16, 4096, 24


class Linear(nn.Module):
    """A matrix without a bias, multiplied by einsum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,oi->bto", x, self.weight)


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        return (self.weight * x).to(dtype)


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(T), 10_000 ** -(torch.arange(0, D // N, 2) / (D // N)))
        self.register_buffer("turns", torch.stack((angles.cos(), angles.sin())), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (-1, 2)).movedim(-1, 0).unbind(0)
        cos, sin = self.turns[:, : x.shape[-2], :].unbind(0)
        turned = cos * first - sin * second
        other = sin * first + cos * second
        return torch.concat((turned, other), dim=-1)


def softmax(x: Tensor) -> Tensor:
    rest = x - torch.max(x, dim=-1, keepdim=True)[0]
    powers = torch.exp(rest)
    return powers / torch.sum(powers, dim=-1, keepdim=True)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    scores = torch.einsum("bnqh,bnkh->bnqk", query, key) / math.sqrt(key.shape[-1])
    scores = torch.where(mask, scores, float("-inf"))
    return torch.einsum("bnqk,bnkh->bnqh", softmax(scores), value)


class SelfAttention(nn.Module):
    def __init__(self, rotary: Rotary) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.output_proj = (Linear(D, D) for _ in range(4))
        self.rotary = rotary

    def forward(self, x: Tensor) -> Tensor:
        parts = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        query, key, value = (part.unflatten(-1, (N, -1)).transpose(1, 2) for part in parts)
        query, key = self.rotary(query), self.rotary(key)
        places = torch.arange(x.shape[1], device=x.device)
        mask = (places[:, None] >= places[None, :])[None, None]
        heads = attention(query, key, value, mask)
        return self.output_proj(heads.transpose(1, 2).flatten(2).contiguous())


class SwiGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = Linear(D, FEED_FORWARD), Linear(FEED_FORWARD, D), Linear(D, FEED_FORWARD)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.w1(x)
        return self.w2(gate * torch.sigmoid(gate) * self.w3(x))


class Block(nn.Module):
    def __init__(self, rotary: Rotary) -> None:
        super().__init__()
        self.attn, self.ffn, self.ln1, self.ln2 = SelfAttention(rotary), SwiGlu(), RmsNorm(), RmsNorm()

    def forward(self, x: Tensor) -> Tensor:
        x_attn = self.attn(self.ln1(x))
        attended = x + x_attn
        x_ffn = self.ffn(self.ln2(attended))
        return attended + x_ffn


class LanguageModel(nn.Module):
    """Returns its loss, which autocast rules as it does the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.empty(VOCABULARY, D))
        rotary = Rotary()
        self.layers = nn.ModuleList(Block(rotary) for _ in range(LAYERS))
        self.ln_final, self.lm_head = RmsNorm(), Linear(D, VOCABULARY)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.embeddings[batch["tokens"], :]
        for layer in self.layers:
            x = layer(x)
        return cross_entropy(self.lm_head(self.ln_final(x)), batch["targets"])


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    rest = logits - torch.max(logits, dim=-1, keepdim=True)[0]
    likely = rest - torch.log(torch.sum(torch.exp(rest), dim=-1, keepdim=True))
    return torch.gather(-likely, -1, targets.unsqueeze(-1)).mean()


class AdamW(torch.optim.Optimizer):
    """Decoupled weight decay, every step of the arithmetic in a tensor of its own."""

    def __init__(self, parameters, lr: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01})

    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad.data, group)

    def _update(self, parameter: nn.Parameter, grad: Tensor, group: dict) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        state = self.state[parameter]
        t = state.get("t", 1)
        rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        parameter.data -= lr * group["weight_decay"] * parameter.data
        m = state.get("m", torch.zeros_like(grad))
        v = state.get("v", torch.zeros_like(grad))
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        parameter.data -= rate * m / (torch.sqrt(v) + group["eps"])
        state["m"], state["v"], state["t"] = m, v, t + 1
