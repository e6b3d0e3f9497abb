"""A compiled network: it keeps what it may, and learns the same; its step is measured, never predicted."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.errors import NotTraceable, UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers import compile as compiled
from vramfit.jobs.levers.apply import apply_to_network
from vramfit.jobs.levers.compile import Keeping, compile_network
from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.step import Step
from vramfit.prediction.tracing.trace import trace_step

# The compiler of torch 2.11 uses what torch 2.11 itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
# Partitions as the usual compiler does, and then runs PyTorch's own kernels: nothing waits for a C++ compiler.
PARTITIONER = "aot_eager_decomp_partition"


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, value):
        return self.last(F.silu(self.norm(self.first(value))))


def network():
    torch.manual_seed(3)
    return Network()


def samples(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 1, 16, 16, generator=generator), torch.randn(count, 2, 16, 16, generator=generator)


def job(levers="none"):
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    return Job(
        model=network, batch=samples, loss=F.mse_loss, optimizer=optimizer, amp=None, levers=parse_levers(levers)
    )


@pytest.fixture
def partitioned(monkeypatch):
    monkeypatch.setattr(compiled, "Keeping", partial(Keeping, compiler=PARTITIONER))


def kept_bytes(model, images):
    """What the compiled forward pass keeps beside its input and the weights."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers(), images)}
    outputs = model(images)
    kept = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in outputs.grad_fn.saved_tensors}
    return sum(size for storage, size in kept.items() if storage not in own)


def test_the_share_bounds_what_is_kept(partitioned):
    images, kept = samples(2)[0], {}
    for share in (1.0, 0.5, 0.0):
        model = network()
        compile_network(model, share)
        kept[share] = kept_bytes(model, images)
    # Whole tensors are kept or not, and small ones such as means are not weighed.
    assert kept[0.0] == 0 < kept[0.5] <= 0.51 * kept[1.0]


def test_a_compiled_step_learns_the_same_and_moves_statistics_once(partitioned):
    plain, tight = Step(job(), "cpu"), Step(job("compile=0"), "cpu")
    for _ in range(5):
        torch.testing.assert_close(tight.train(samples(4), 2), plain.train(samples(4), 2), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tight.model.state_dict(), plain.model.state_dict(), rtol=1e-5, atol=1e-6)
    assert list(tight.model.state_dict()) == list(plain.model.state_dict())


def test_a_copy_is_not_compiled(partitioned):
    model = network()
    compile_network(model, 1.0)
    assert model._compiled_call_impl is not None
    assert copy.deepcopy(model)._compiled_call_impl is None


def test_nothing_is_predicted_of_a_compiled_step():
    with pytest.raises(NotTraceable, match=r"is compiled.*measure it on a card, or remove the compile lever"):
        trace_step(job("compile=50"), 2)


def test_a_card_needs_triton(monkeypatch):
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    model = network()
    monkeypatch.setattr(model, "parameters", lambda: [type("OnCard", (), {"device": torch.device("cuda")})])
    with pytest.raises(UsageError, match="needs Triton"):
        compile_network(model, 1.0)


def test_compiling_and_recomputing_exclude_each_other():
    with pytest.raises(UsageError, match="compile itself chooses what to recompute"):
        parse_levers("recompute=block,compile=50")


def test_upsampling_in_half_precision_is_compiled_with_the_rest():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1))
    apply_to_network(model, parse_levers("half_upsample"))
    assert torch._dynamo.explain(model)(samples(2)[0]).graph_break_count == 0
