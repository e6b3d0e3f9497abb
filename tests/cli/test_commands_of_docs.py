"""Every command of the README, the Persian guide and the tutorials runs, page by page in their order."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from vramfit.landmarks.sample.make import make_sample

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs" / "tutorials").glob("*.md")),
    REPOSITORY / "docs/guide.fa.md",
]

# Commands that are not run here, and why.
NOT_RUN = {
    "vramfit demo": "takes minutes; .ci/run runs it",
    "vramfit run --gpu rtx3070ti --find batch-size -- python train.py": "many runs; tests/unit/script/test_run.py",
    "vramfit export checkpoints/checkpoint_best.pth --to onnx": "ten seconds; tests/cli/test_export.py runs it",
    "vramfit probe --model hf:gpt2 --seq-len 512 --gpu rtx3090": "reads a configuration from the Hugging Face Hub",
}
# What makes a command small: options that stand after its own and so count in their place.
FILMS = ("--model", "hrnet_w18_small", "--image-size", "64")
NETWORK = ("--model", "timm:test_resnet", "--image-size", "32")
ONE_EPOCH = ("--epochs", "1", "--warmup-epochs", "0", "--weights", "none", "--workers", "0", "--device", "cpu")
SCRIPT = """
import argparse
import torch
parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=4)
model = torch.nn.Linear(64, 4).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = torch.utils.data.DataLoader(torch.ones(64, 64), parser.parse_args().batch_size)
for part in data:
    optimizer.zero_grad()
    model(part.cuda()).sum().backward()
    optimizer.step()
"""
JOB = """
import torch
import vramfit


def job():
    return vramfit.Job(
        model=lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        batch=lambda n: (torch.randn(n, 3, 32, 32), torch.zeros(n, dtype=torch.int64)),
        loss=torch.nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    )
"""


def commands(page):
    """The lines of a page's code that begin with vramfit, without their comments."""
    lines = re.findall(r"^(?: {4})?(vramfit .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.partition("  #")[0].strip() for line in lines]


def written_by(page, folder):
    """Write the files that a page shows: its blocks of Python that begin with a file's name."""
    for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        (folder / name).write_text(code, encoding="utf-8")


def small(words):
    """The same command in little time; a profile that is kept is of the network that is trained."""
    verb, *given = words
    if verb == "run":
        return [verb, "--steps", "2", *(sys.executable if word == "python" else word for word in given)]
    if verb == "train":
        return [verb, *given, *FILMS, *ONE_EPOCH]
    if verb in {"evaluate", "infer"}:
        return [verb, *given, "--device", "cpu"]
    if verb not in {"probe", "explain"}:
        return words
    of_user = any(word.endswith(".py:job") for word in given)
    network = () if of_user else FILMS if {"-o", "--export"} & {*given} and verb == "probe" else NETWORK
    sizes = ("--image-sizes", "32,64") if "--image-sizes" in given else network[2:]
    batches = () if "--batch-size" in given or verb == "explain" else ("--batch-sizes", "1" if of_user else "2,4")
    return [verb, *given, *network[:2], *sizes, *batches]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the pages take as given: films, a script, a function that returns a Job."""
    folder = tmp_path_factory.mktemp("given")
    make_sample(folder / "Aariz", films=12, height=96)
    shutil.copytree(folder / "Aariz" / "test" / "Cephalograms", folder / "new-films")
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "my_model.py").write_text(JOB, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def answered():
    """Commands that ran on an earlier page and that no other needs."""
    return set()


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(vramfit, made, answered, tmp_path, monkeypatch, page):
    folder = shutil.copytree(made, tmp_path / "folder")
    monkeypatch.chdir(folder)
    written_by(page, folder)
    found = commands(page)
    assert found
    for line in found:
        words = small(shlex.split(line)[1:])
        if line in NOT_RUN or tuple(words) in answered:
            continue
        outcome = vramfit(*words)
        assert outcome.code == 0, f"{line}\n{outcome.err}"
        answered |= set() if {"train", "-o", "--export"} & {*words} else {tuple(words)}


def test_what_is_not_run_stands_on_a_page():
    assert set(NOT_RUN) <= {line for page in PAGES for line in commands(page)}
