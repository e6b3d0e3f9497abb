"""Code of a job that asks where a tensor is goes the way that it goes on a card."""

import sys
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step

WIDTH, SAMPLES = 16, 4
MIB = 1 << 20


class Reading(nn.Module):
    """A layer whose output a function reads before it is returned."""

    def __init__(self, read) -> None:
        super().__init__()
        self.layer, self.read = nn.Linear(WIDTH, WIDTH), read

    def forward(self, value: Tensor) -> Tensor:
        value = self.layer(value)
        result = self.read(value)
        return result if isinstance(result, Tensor) else value


def traced(read, **options) -> Trace:
    job = Job(
        model=lambda: Reading(read),
        batch=lambda n: (torch.zeros(n, WIDTH), torch.zeros(n, WIDTH)),
        loss=F.mse_loss,
        optimizer=torch.optim.AdamW,
        **options,
    )
    return trace_step(job, SAMPLES, validation=False)


def answers(read) -> list:
    said = []
    traced(lambda value: said.append(read(value)), amp=None)
    return said[0]


def test_a_tensor_says_that_it_is_on_the_card() -> None:
    assert answers(lambda x: (x.device, x.is_cuda, x.is_cpu, x.get_device())) == (
        torch.device("cuda:0"),
        True,
        False,
        0,
    )
    assert answers(lambda x: x.untyped_storage().device) == torch.device("cuda:0")
    assert answers(lambda x: next(iter(nn.Linear(2, 2).to(x.device).parameters())).device.type) == "cuda"
    assert answers(lambda _: torch.zeros(3).device) == torch.device("cpu")
    assert answers(lambda _: torch.zeros(3, device="cpu").device) == torch.device("cpu")
    assert answers(lambda _: torch.zeros(3, device="meta").is_meta)


def test_a_library_takes_the_cards_branch_and_not_the_hosts() -> None:
    """As torchvision's batched_nms does, which loops over classes where boxes are few or on a CPU."""
    limit = answers(lambda x: 4_000 if x.device.type == "cpu" else 100_000)
    assert limit == 100_000


def with_device(value: Tensor) -> Tensor:
    with torch.device(value.device):
        return value + torch.ones(WIDTH)


def with_stream(value: Tensor) -> Tensor:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        other = value + 1
    torch.cuda.current_stream().wait_stream(stream)
    other.record_stream(stream)
    return other


def with_forked_generator(value: Tensor) -> Tensor:
    with torch.random.fork_rng():
        return value + torch.rand(WIDTH, device=value.device)


def adding(value: Tensor) -> Tensor:
    return value + torch.ones(WIDTH, device=value.device)


ON_CARD = {
    "arange": lambda x: torch.arange(WIDTH, device=x.device),
    "zeros": lambda x: torch.zeros(WIDTH, device=x.device),
    "word": lambda _: torch.zeros(WIDTH, device="cuda"),
    "number": lambda _: torch.zeros(WIDTH, device=0),
    "tensor": lambda x: torch.tensor([1.0] * WIDTH, device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0] * WIDTH),
    "new_tensor there": lambda x: x.new_tensor([1.0] * WIDTH, device=x.device),
    "new_zeros": lambda x: x.new_zeros(WIDTH, device=x.device),
    "like one of the host": lambda x: torch.zeros_like(torch.ones(WIDTH), device=x.device),
    "to": lambda x: torch.ones(WIDTH).to(x.device),
    "to number": lambda _: torch.ones(WIDTH).to(0),
    "to with dtype": lambda x: torch.ones(WIDTH).to(device=x.device, dtype=torch.float64, non_blocking=True),
    "type_as": lambda x: torch.ones(WIDTH).type_as(x),
    "back again": lambda x: x.detach().cpu().to(x.device),
    "generator": lambda x: torch.rand(WIDTH, generator=torch.Generator(x.device), device=x.device),
    "if available": lambda _: torch.ones(WIDTH, device="cuda" if torch.cuda.is_available() else "cpu"),
    "accelerator": lambda _: torch.ones(WIDTH, device=torch.accelerator.current_accelerator()),
}


@pytest.mark.parametrize("form", ON_CARD)
def test_what_is_made_where_a_tensor_is_is_on_the_card(form) -> None:
    assert answers(lambda x: ON_CARD[form](x).is_cuda)
    traced(lambda x: (x + ON_CARD[form](x)).float())


@pytest.mark.parametrize("place", ["cpu", torch.device("cpu")])
def test_the_host_is_the_host_by_word_and_by_object(place) -> None:
    assert answers(lambda x: torch.ones(WIDTH, device=place).is_cpu)
    assert answers(lambda x: torch.zeros_like(x, device=place).is_cpu)
    assert answers(lambda x: x.detach().to(place).is_cpu)


@pytest.mark.parametrize(
    "read",
    [
        with_device,
        with_stream,
        with_forked_generator,
        lambda x: checkpoint(adding, x, use_reentrant=False),
        lambda x: nn.Linear(WIDTH, WIDTH, device=x.device)(x),
        torch.func.vmap(adding),
        lambda _: (torch.cuda.synchronize(), torch.cuda.empty_cache(), torch.cuda.manual_seed_all(1)),
        lambda x: 1 / (torch.cuda.mem_get_info()[1] > torch.cuda.max_memory_allocated() >= x.nbytes),
    ],
)
def test_code_for_a_card_runs(read) -> None:
    for amp in (None, "fp16"):
        assert not traced(read, amp=amp, clip_norm=1.0).assumptions


def test_autocast_of_where_a_tensor_is_casts_and_that_of_a_cpu_does_not() -> None:
    def product(device: str):
        def read(value: Tensor) -> tuple[torch.dtype, bool]:
            with torch.autocast(device, dtype=torch.bfloat16):
                return (value @ value.T).dtype, torch.is_autocast_enabled(device)

        return read

    before = torch.get_autocast_dtype("cpu")
    assert answers(lambda x: product(x.device.type)(x)) == (torch.bfloat16, True)
    assert answers(product("cpu")) == (torch.float32, True)
    assert answers(lambda x: torch.get_autocast_dtype(x.device.type)) == torch.float16
    assert torch.get_autocast_dtype("cpu") == before


def test_autocast_turned_off_for_a_card_is_off() -> None:
    said = []

    def read(value: Tensor) -> None:
        with torch.autocast("cuda", enabled=False):
            said.append((value.float() @ value.float().T).dtype)
        with torch.autocast("cpu", enabled=False):
            said.append((value @ value.T).dtype)

    traced(read, amp="fp16")
    assert said[:2] == [torch.float32, torch.float16]


def test_clipping_and_the_scaler_work_on_the_card() -> None:
    """They take gradients apart by the device that C++ tells; what they make of it takes some bytes of the card."""
    plain, clipped = (traced(lambda _: None, amp="fp16", clip_norm=norm) for norm in (None, 1.0))
    assert clipped.assumptions == []
    added = {operation.name for operation in clipped.operations} - {operation.name for operation in plain.operations}
    assert any("norm" in name for name in added)


@cache
def has_card() -> bool:
    return torch.cuda.is_available()


def test_nothing_lasts_of_the_card(tmp_path, monkeypatch) -> None:
    """Cached answers are forgotten, and a module that is imported meanwhile hears what holds on this machine."""
    if torch.cuda.is_available():
        pytest.skip("a card is here")
    (tmp_path / "imported_in_a_trace.py").write_text("import torch\nCARD = torch.cuda.is_available()\n")
    monkeypatch.syspath_prepend(tmp_path)

    def read(_: Tensor) -> tuple[bool, bool]:
        import imported_in_a_trace

        return has_card(), imported_in_a_trace.CARD

    assert answers(read) == (True, False)
    assert not has_card()
    assert not torch.cuda.is_available()
    del sys.modules["imported_in_a_trace"]


def rooted(value: Tensor) -> Tensor:
    """Compiled below; as transformers' DeBERTa has it."""
    return value + torch.sqrt(torch.tensor(value.size(-1), dtype=torch.float) * 3) + torch.as_tensor(value.size(0))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_function_that_is_scripted_while_the_trace_runs_is_compiled() -> None:
    early = torch.jit.script(rooted)

    def late(value: Tensor) -> Tensor:
        return torch.jit.script(rooted)(value)

    assert traced(late).peak_bytes == traced(early).peak_bytes
