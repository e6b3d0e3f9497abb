"""flex_attention, traced as the kernel that it is compiled into."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.jobs.job import Job
from vramfit.prediction.tracing.trace import trace_step

flex = pytest.importorskip("torch.nn.attention.flex_attention")
B, N, L, E = 2, 4, 256, 16


class Attending(nn.Module):
    """One layer of causal attention, by either function."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.project, self.head = nn.Linear(N * E, 3 * N * E), nn.Linear(N * E, 8)
        self.bias = nn.Parameter(torch.zeros(N))

    def forward(self, values: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (N, E)).transpose(1, 2) for part in self.project(values).chunk(3, -1))
        return self.head(self.attend(query, key, value).transpose(1, 2).flatten(2).mean(1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = self.bias
        if self.kind == "sdpa":
            return F.scaled_dot_product_attention(query, key, value) + 0 * bias.sum()
        if self.kind == "bias":
            return flex.flex_attention(query, key, value, score_mod=lambda score, b, h, i, j: score + bias[h])
        if self.kind == "grouped":
            return flex.flex_attention(query, key[:, :2], value[:, :2], enable_gqa=True)
        if self.kind == "compiled":
            return torch.compile(flex.flex_attention)(query, key, value)
        if self.kind == "block mask":
            length = query.shape[2]
            mask = flex.create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device=query.device)
            return flex.flex_attention(query, key, value, block_mask=mask)
        found, sums = flex.flex_attention(query, key, value, return_lse=True)
        return found + 0 * sums[..., None]


def traced(kind: str, **changes):
    def batch(count: int):
        return torch.zeros(count, L, N * E), torch.zeros(count, dtype=torch.long)

    settings = {"amp": None, **changes}
    made = Job(
        model=lambda: Attending(kind), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.AdamW, **settings
    )
    return trace_step(made, B, validation=False)


@pytest.mark.filterwarnings("ignore:return_lse:FutureWarning")
@pytest.mark.parametrize("kind", ["bias", "grouped", "block mask", "sums", "compiled"])
def test_no_scores_are_held_and_the_prediction_says_that_it_is_compiled(kind: str) -> None:
    trace = traced(kind)
    scores = B * N * L * L * 4
    assert max(one.size_bytes for one in trace.storages if one.phase != "setup") < scores
    assert any("flex_attention is compiled into one kernel" in line for line in trace.assumptions)


def test_it_takes_what_fused_attention_takes() -> None:
    plain, fused = traced("sdpa"), traced("bias")
    assert fused.peak_bytes == pytest.approx(plain.peak_bytes, rel=0.01)


def test_what_a_score_mod_captures_is_learned() -> None:
    gradients = [one.size_bytes for one in traced("bias").storages if one.kind == "gradient"]
    assert N * 4 in gradients


def test_autocast_makes_it_half_precision() -> None:
    kinds = {one.dtype for one in traced("bias", amp="bf16").operations if "efficient_attention" in one.name}
    assert kinds == {"bfloat16"}
