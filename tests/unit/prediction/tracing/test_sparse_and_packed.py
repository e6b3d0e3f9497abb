"""Sparse gradients, packed sequences and grouped products in a trace, against bytes counted by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step

ROWS, WIDTH, TOKENS = 5000, 16, 8


class Looking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH, sparse=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).mean(1)


def tokens(samples: int) -> tuple[Tensor, Tensor]:
    return torch.randint(ROWS, (samples, TOKENS)), torch.randint(WIDTH, (samples,))


def traced(model, batch, optimizer, samples=4) -> Trace:
    job = Job(model=model, batch=batch, loss=F.cross_entropy, optimizer=optimizer, amp=None)
    return trace_step(job, samples, validation=False)


def test_a_sparse_gradient_is_as_large_as_what_was_looked_up() -> None:
    trace = traced(Looking, tokens, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert [s.size_bytes for s in trace.storages if s.size_bytes >= ROWS * WIDTH * 4] == [ROWS * WIDTH * 4]
    gradients = {s.size_bytes for s in trace.storages if s.kind == "gradient"}
    assert 4 * TOKENS * WIDTH * 4 in gradients


def test_sparse_adam_keeps_dense_moments_and_dense_nothing_else() -> None:
    trace = traced(Looking, tokens, lambda parameters: torch.optim.SparseAdam(list(parameters)))
    dense = [s for s in trace.storages if s.size_bytes >= ROWS * WIDTH * 4]
    assert [s.kind for s in dense] == ["parameter", "optimizer state", "optimizer state"]


class Packing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            inputs["values"], inputs["lengths"].cpu(), batch_first=True, enforce_sorted=False
        )
        assert packed.data.shape[0] == sum(range(1, inputs["lengths"].shape[0] + 1))
        hidden: Tensor = self.layer(packed)[1][0][-1]
        return hidden


def sequences(samples: int) -> tuple[dict[str, Tensor], Tensor]:
    values = torch.zeros(samples, TOKENS, WIDTH)
    return {"values": values, "lengths": torch.arange(samples) + 1}, torch.zeros(samples, dtype=torch.long)


def test_packed_sequences_are_as_long_as_the_samples_own() -> None:
    trace = traced(Packing, sequences, torch.optim.SGD)
    assert any(operation.name.startswith("_cudnn_rnn") for operation in trace.operations)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped_mm")
def test_grouped_products_of_float32_have_the_shape_of_their_groups() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, WIDTH, WIDTH))

        def forward(self, values: Tensor) -> Tensor:
            ends = torch.tensor([1, 2, values.shape[0]], dtype=torch.int32, device=values.device)
            products: Tensor = F.grouped_mm(values, self.weight, offs=ends)
            return products

    def rows(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    trace = traced(Experts, rows, torch.optim.SGD)
    assert {o.written_bytes for o in trace.operations if o.name == "_grouped_mm"} == {
        4 * WIDTH * 4,
        3 * WIDTH * WIDTH * 4,
    }


class Spreading(nn.Module):
    """A sparse matrix of neighbours times what a layer computes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        places = torch.arange(values.shape[0], device=values.device).expand(2, -1)
        ones, size = torch.ones(values.shape[0], device=values.device), (values.shape[0], values.shape[0])
        matrix = torch.sparse_coo_tensor(places, ones, size)
        return torch.sparse.mm(matrix.coalesce(), self.layer(values))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_a_product_with_a_sparse_matrix_is_dense_and_no_larger() -> None:
    def rows(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    trace = traced(Spreading, rows, torch.optim.SGD, samples=300)
    assert max(s.size_bytes for s in trace.storages) == 300 * WIDTH * 4


class OfEachSample(nn.Module):
    """The gradients of every sample by itself, as private training takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 4)

    def forward(self, values: Tensor) -> Tensor:
        weights = {name: value.detach() for name, value in self.layer.named_parameters()}

        def loss(weights: dict[str, Tensor], value: Tensor) -> Tensor:
            return torch.func.functional_call(self.layer, weights, (value,)).square().sum()

        slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, values)
        return self.layer(values) + 0 * slopes["weight"].sum()


def test_gradients_of_every_sample_are_traced() -> None:
    def rows(samples: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(samples, WIDTH), torch.zeros(samples, dtype=torch.long)

    trace = traced(OfEachSample, rows, torch.optim.SGD, samples=8)
    assert 8 * 4 * WIDTH * 4 in {s.size_bytes for s in trace.storages}
