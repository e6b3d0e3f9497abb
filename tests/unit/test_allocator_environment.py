"""What the environment tells the allocator, without torch and as torch reads it."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vramfit
from vramfit.allocator_environment import check_environment, given_options, split_options, with_options
from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.prediction.allocator.allocator import Settings
from vramfit.records import Lever

OLD, NEW = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
# Of torch 2.14: these abort its import.
REFUSED = ["expandable_segments=True", "expandable_segments", "foo:", "a:b:c", "x:[1:2", "max_split_size_mb:64 a:True"]
TAKEN = ["", "expandable_segments:True,", " expandable_segments: True ", "backend:native,,max_split_size_mb:64"]


@pytest.mark.parametrize("name", [OLD, NEW])
@pytest.mark.parametrize("text", REFUSED)
def test_what_torch_refuses_is_told_with_the_name_of_the_variable(name, text) -> None:
    with pytest.raises(UsageError, match=rf"{name} would abort PyTorch: .* write name:value"):
        check_environment({name: text})


@pytest.mark.parametrize("text", [*TAKEN, "roundup_power2_divisions:[256:1,512:2],expandable_segments:True"])
def test_what_torch_takes_is_taken(text) -> None:
    check_environment({NEW: text, OLD: text})


def test_the_new_name_wins_and_options_are_laid_over_it() -> None:
    both = {NEW: "max_split_size_mb:64,expandable_segments:False", OLD: "backend:native"}
    assert given_options(both) == both[NEW]
    assert with_options(both, "expandable_segments:True") == "max_split_size_mb:64,expandable_segments:True"
    assert with_options(both, "") == both[NEW]
    assert list(split_options("a:[1:2,3:4],b:c")) == [("a", "[1:2,3:4]"), ("b", "c")]


def test_what_cannot_be_replayed_is_kept_apart() -> None:
    settings, unknown = Settings.parse_known("backend:cudaMallocAsync,expandable_segments:True,new_option:3")
    assert settings == Settings(expandable_segments=True)
    assert unknown == "backend:cudaMallocAsync,new_option:3"
    with pytest.raises(UsageError, match="max_split_size_mb cannot be 'much'"):
        Settings.parse_known("max_split_size_mb:much")


def batch(samples):
    return torch.zeros(samples, 1 << 16), torch.zeros(samples, 64)


def job(*levers: str) -> Job:
    return Job(
        model=partial(nn.Linear, 1 << 16, 64),
        batch=batch,
        loss=F.mse_loss,
        optimizer=torch.optim.SGD,
        amp=None,
        levers=tuple(map(Lever.model_validate, ({"name": name} for name in levers))),
    )


@pytest.mark.parametrize("name", [OLD, NEW])
def test_a_setting_of_the_environment_counts_as_its_lever_does(monkeypatch, name) -> None:
    predict = partial(vramfit.predict, micro_batch=24, gpu="rtx3090")
    plain, levered = predict(job()), predict(job("expandable_segments"))
    monkeypatch.setenv(name, "expandable_segments:True")
    assert predict(job()) == levered
    assert levered.peak_reserved_bytes != plain.peak_reserved_bytes
    profile = vramfit.fit(job(), gpu="rtx3090", batch_sizes=[24])
    assert profile.machine.allocator_settings == "expandable_segments:True"
    assert any("expandable_segments:True" in note for note in profile.notes)


def test_another_backend_is_not_claimed(monkeypatch) -> None:
    monkeypatch.setenv(NEW, "backend:cudaMallocAsync")
    assert "backend:cudaMallocAsync is not predicted" in vramfit.predict(job(), micro_batch=2, gpu="rtx3090").note
    profile = vramfit.fit(job(), gpu="rtx3090", batch_sizes=[2])
    assert profile.machine.allocator_settings == ""
    assert any("backend:cudaMallocAsync is not predicted" in note for note in profile.notes)


@pytest.mark.parametrize(
    "arguments", [["-m", "vramfit", "probe", "--gpu", "rtx3090"], ["-c", "import vramfit; vramfit.predict"]]
)
def test_no_import_of_torch_aborts(arguments) -> None:
    environment = {**os.environ, NEW: "expandable_segments=True"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if "-m" in arguments else 1)
    assert f"{NEW} would abort PyTorch" in done.stderr.splitlines()[-1]
    if "-m" in arguments:
        assert len(done.stderr.splitlines()) == 1
