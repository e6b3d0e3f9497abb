"""Every lever in one registry: a new one is a module, a row of its page and a test, and no other line."""

import ast
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vramfit
from vramfit.errors import UsageError
from vramfit.jobs import levers
from vramfit.jobs.job import Job
from vramfit.jobs.levers import registry
from vramfit.jobs.levers.apply import free_levers
from vramfit.jobs.levers.text import describe_levers, parse_levers
from vramfit.jobs.step import Step

PAGE = Path(__file__).parents[4] / "docs" / "levers.md"
# A whole lever, as somebody would add it: an optimizer without state, and a network that notes how often it ran.
TOY = """
from dataclasses import replace
from functools import partial

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register


@register
class PlainDescent(LeverKind):
    name = "plain_descent"
    settings = ("slow", "fast")
    cost = "free"
    order = 15
    exact = False
    conflicts = {"fused_optimizer": "plain_descent has nothing to fuse; remove fused_optimizer."}

    def is_free_for(self, job, model):
        return job.clip_norm is None

    def on_job(self, job, lever):
        import torch

        return replace(job, optimizer=partial(torch.optim.SGD, lr=0.1 if lever.setting == "slow" else 1.0))

    def on_network(self, model, lever):
        model.calls = 0
        model.register_forward_pre_hook(lambda *_: setattr(model, "calls", model.calls + 1))

    def on_step(self, step, lever):
        step.toy = lever.setting
"""


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(256, 1024), nn.Tanh(), nn.Linear(1024, 256))


def samples(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 256, generator=generator), torch.randn(count, 256, generator=generator)


def make_job(text="none", **changes):
    adam = partial(torch.optim.Adam, lr=0.01)
    job = Job(model=network, batch=samples, loss=F.mse_loss, optimizer=adam, amp=None, levers=parse_levers(text))
    return replace(job, **changes)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """One more file in the package of the levers, as long as a test lasts."""
    (tmp_path / "plain_descent.py").write_text(TOY, encoding="utf-8")
    registry.kinds()
    monkeypatch.setattr(levers, "__path__", [*levers.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.delitem(sys.modules, f"{levers.__name__}.plain_descent", raising=False)
    registry._import_all.cache_clear()
    yield
    sys.modules.pop(f"{levers.__name__}.plain_descent", None)


def test_a_file_of_its_own_is_all_that_a_lever_needs_to_be_read_and_offered(toy):
    assert registry.names()[:3] == ("expandable_segments", "plain_descent", "fused_optimizer")
    assert describe_levers(parse_levers("plain-descent=fast")) == "plain_descent=fast"
    assert "plain_descent" in [lever.name for lever in free_levers(make_job())]
    assert "plain_descent" not in [lever.name for lever in free_levers(make_job(clip_norm=1.0))]
    with pytest.raises(UsageError, match="has nothing to fuse"):
        parse_levers("fused_optimizer,plain_descent")


def test_a_file_of_its_own_is_all_that_a_lever_needs_to_be_predicted_and_trained(toy):
    job, written_out = make_job("plain_descent=fast"), make_job(optimizer=partial(torch.optim.SGD, lr=1.0))
    step = Step(job, "cpu")
    step.train(samples(4), 2)
    assert (step.toy, step.model.calls) == ("fast", 2)
    assert isinstance(step.optimizer, torch.optim.SGD)
    peaks = [predicted_bytes(tried) for tried in (job, written_out, make_job())]
    assert peaks[0] == peaks[1] < peaks[2]


def predicted_bytes(job):
    return vramfit.predict(job, micro_batch=2, gpu="rtx3090").peak_allocated_bytes


def test_no_lever_is_left_over_from_a_test():
    assert "plain_descent" not in registry.names()


def test_two_levers_of_one_name_are_a_mistake(toy):
    kind = type(registry.kind_of("plain_descent"))
    with pytest.raises(ValueError, match="plain_descent is registered twice"):
        registry.register(kind)


def test_levers_are_read_and_refused_without_torch():
    script = (
        "import sys; from vramfit.errors import UsageError; from vramfit.jobs.levers.text import parse_levers\n"
        "parse_levers('recompute=block,amp')\n"
        "try: parse_levers('compile=7')\nexcept UsageError: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_no_code_but_its_own_file_asks_for_a_lever_by_name():
    package = Path(vramfit.__file__).parent
    files = [file for file in package.rglob("*.py") if Path(levers.__file__).parent not in file.parents]
    assert files
    assert [f"{file}:{line}" for file in files for line in _lines_that_name_a_lever(file)] == []


def _lines_that_name_a_lever(file):
    """Where `x.name` is compared with the name of a lever, or a Lever is made of one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare) and any(getattr(part, "attr", "") == "name" for part in ast.walk(node)):
            words = ast.walk(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Lever":
            words = (word.value for word in node.keywords if word.arg == "name")
        else:
            continue
        yield from (word.lineno for word in words if isinstance(word, ast.Constant) and word.value in registry.names())


def rows():
    """The page's table as (settings in backquotes, cost, exact) by the name of the lever."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            words = re.findall(r"`([^`]+)`", cells[0])
            name, _, first = words[0].partition("=")
            found.setdefault(name, (set(), cells[2], cells[3]))[0].update({first, *words[1:]} - {""})
    return found


def test_the_page_has_every_lever_and_no_other():
    assert set(rows()) == set(registry.names())


@pytest.mark.parametrize("kind", registry.kinds(), ids=lambda kind: kind.name)
def test_the_row_of_a_lever_says_what_the_code_says(kind):
    settings, cost, exact = rows()[kind.name]
    assert settings <= set(kind.settings)
    assert cost.startswith("nothing") == (kind.cost == "free")
    assert exact.startswith("no") != kind.exact
