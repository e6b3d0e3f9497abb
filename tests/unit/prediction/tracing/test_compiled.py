"""A compiled network or loss is predicted uncompiled, and the answer says so."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn, optim

import vramfit
from vramfit.records import Trial

_SAID = "what torch.compile compiled is predicted as it runs uncompiled"


def _plain() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))


def _wrapped() -> nn.Module:
    return torch.compile(_plain())  # type: ignore[no-any-return]  # torch wraps a module in a module


def _one_layer() -> nn.Module:
    model = _plain()
    model[0].compile()  # type: ignore[index]
    return model


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).mean()


def _trial(model: Callable[[], nn.Module], loss: Callable[[Tensor, Tensor], Tensor]) -> Trial:
    job = vramfit.Job(
        model=model,
        batch=lambda n: (torch.randn(n, 64), torch.randn(n, 64)),
        loss=loss,
        optimizer=lambda parameters: optim.SGD(parameters, lr=0.1),
        amp=None,
    )
    return vramfit.predict(job, micro_batch=4, gpu="rtx3060")


@pytest.mark.parametrize(
    ("model", "loss"),
    [(_wrapped, _squared), (_one_layer, _squared), (_plain, torch.compile(_squared))],
    ids=["network", "layer", "loss"],
)
def test_compiled_step_is_said_to_be_predicted_uncompiled(
    model: Callable[[], nn.Module], loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    trial, plain = _trial(model, loss), _trial(_plain, _squared)
    assert [said.partition(": ")[2] for said in trial.assumptions] == [_SAID]
    assert trial.peak_allocated_bytes == plain.peak_allocated_bytes
    assert not plain.assumptions


def test_a_reset_of_the_compiler_before_it_changes_nothing() -> None:
    torch._dynamo.trace_rules.clear_lru_cache()  # as `torch._dynamo.reset` leaves it
    assert [said.partition(": ")[2] for said in _trial(_wrapped, _squared).assumptions] == [_SAID]


def test_function_that_asked_not_to_be_compiled_says_nothing() -> None:
    apart = torch.compiler.disable(_squared)
    assert not _trial(_plain, apart).assumptions
