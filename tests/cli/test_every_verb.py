"""What holds for every verb: one JSON document on success and on failure, options in panels, one style of metavar."""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import typer
from made_checkpoint import make_checkpoint

from vramfit.cli import demo
from vramfit.cli.arguments import choose_card
from vramfit.cli.main import app, main
from vramfit.cli.panels import FIRST, PANELS, name_of
from vramfit.errors import UsageError
from vramfit.landmarks.sample.make import make_sample

SNAPSHOT = Path(__file__).resolve().parents[1] / "golden" / "snapshot.pickle"
SCRIPT = """
import torch
model = torch.nn.Linear(8, 4).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(9):
    optimizer.zero_grad()
    model(torch.ones(2, 8, device="cuda")).sum().backward()
    optimizer.step()
"""
METAVARS = {"N", "X", "SIZE", "FILE", "FOLDER", "PATH", "NAME", "LIST", "CARD", "OPTION", "PROFILE", "[FILE]"}


def commands(group=None, path=()):
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, *name.split()), command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Films, a checkpoint and a script: what verbs are given."""
    folder = tmp_path_factory.mktemp("made")
    films = make_sample(folder / "films", films=6, height=96)
    checkpoint = make_checkpoint(films, folder / "checkpoint.pth")
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    return {"films": str(films), "checkpoint": str(checkpoint), "script": str(folder / "train.py")}


def succeeding(made, folder):
    """Words with which each verb succeeds in little time."""
    small = ("--model", "timm:test_resnet", "--image-size", "32", "--gpu", "t4")
    marked = ("--dataset-path", made["films"], "--device", "cpu", "--cache-dir", str(folder / "cache"))
    return {
        ("demo",): ("-o", str(folder / "demo")),
        ("doctor",): (),
        ("cards",): (),
        ("probe",): (*small, "--batch-sizes", "2"),
        ("explain",): (*small, "--batch-size", "2"),
        ("run",): ("--gpu", "t4", "--steps", "2", "--", sys.executable, made["script"]),
        ("check",): (*small, "--batch-size", "2", "--update", "--lock", str(folder / "vramfit.lock")),
        ("replay",): (str(SNAPSHOT),),
        ("train",): (
            *(*marked, "--model", "hrnet_w18_small", "--image-size", "64", "64", "--weights", "none", "--workers", "0"),
            *("--batch", "4", "--epochs", "1", "-o", str(folder / "run"), "--log-dir", str(folder / "logs")),
        ),
        ("evaluate",): (made["checkpoint"], *marked),
        ("infer",): (made["checkpoint"], made["films"], "--device", "cpu", "-o", str(folder / "found")),
        ("export",): (made["checkpoint"], "--to", "safetensors", "-o", str(folder / "net.safetensors")),
        ("sample",): ("-o", str(folder / "sample"), "--films", "4", "--height", "96"),
        ("profile", "list"): (),
        ("profile", "show"): ("rtx3070ti-768",),
        ("profile", "diff"): ("rtx3070ti-768", "rtx3070ti-512"),
        ("profile", "export"): ("rtx3070ti-768", "-o", str(folder / "profile.json")),
        ("profile", "verify"): ("rtx3070ti-768",),
        ("data", "check"): (made["films"],),
        ("data", "preview"): (made["films"], "-o", str(folder / "preview.png"), "--films", "1", "--image-size", "64"),
        ("data", "convert"): (made["films"], "-o", str(folder / "coco"), "--to", "coco"),
    }


# Words with which a verb fails after they are parsed; others fail by an option that no verb has.
FAILING = {
    ("demo",): ("pyproject.toml",),
    ("probe",): ("--gpu", "no such card"),
    ("explain",): ("--model", "no_such_model"),
    ("replay",): ("absent.pickle",),
    ("train",): ("--dataset-path", "absent", "--device", "cpu"),
    ("evaluate",): ("absent.pth", "--dataset-path", "absent"),
    ("profile", "show"): ("absent",),
    ("data", "check"): ("absent",),
}
VERBS = [path for path, _ in commands()]


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_success_is_one_json_document(vramfit, made, tmp_path, monkeypatch, verb):
    monkeypatch.setattr(demo, "_steps", lambda *_: [("Look at this machine.", ["doctor"])])
    words = succeeding(made, tmp_path).get(verb)
    if words is None:
        assert any("--json" in param.opts for path, command in commands() if path == verb for param in command.params)
        return
    outcome = vramfit(*verb, "--json", *words)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_failure_is_one_json_document_with_its_code(vramfit, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    words = FAILING.get(verb, ("--no-such-option",))
    outcome = vramfit(*verb, *words, "--json")
    document = json.loads(outcome.out)
    assert document["exit_code"] == outcome.code > 0
    assert outcome.err == f"vramfit: {document['error']}\n"


@pytest.mark.parametrize(("path", "command"), [*commands()], ids=[" ".join(verb) for verb in VERBS])
def test_metavars_are_of_one_style(path, command):
    for param in command.params:
        shown = param.metavar or ""
        if param.param_type_name == "option" and not param.is_flag and shown not in METAVARS and "|" not in shown:
            assert _has_choices(command, param), (path, param.name, shown)


def _has_choices(command, param):
    annotation = inspect.signature(command.callback).parameters[param.name].annotation
    parts = [get_args(annotation)[0], *get_args(get_args(annotation)[0])]
    return any(get_origin(part) is Literal for part in parts)


def test_the_panels_name_options_that_are_there():
    known = {name_of(param) for _, command in commands() for param in command.params}
    known |= {name.lstrip("-") for _, command in commands() for param in command.params for name in param.opts}
    assert {*FIRST, *(name for names in PANELS.values() for name in names)} <= known


def test_help_has_ten_options_first_and_then_the_panels(vramfit):
    out = vramfit("train", "--help").out
    titles = [line for line in out.splitlines() if re.fullmatch(r"[A-Z]\w+:", line)]
    assert titles == ["Options:", *(f"{title}:" for title in PANELS), "Advanced:"]
    first = out.partition("Options:")[2].partition("Data:")[0]
    assert len(re.findall(r"^  (?:-\w, )?--", first, re.MULTILINE)) == 10
    assert max(map(len, out.splitlines())) <= 100


def test_completion_can_be_installed(monkeypatch, capsys):
    assert "--install-completion" in _help(capsys)
    monkeypatch.setenv("_VRAMFIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "vramfit pro")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["probe", "profile"]


def _help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "visible", "left", "seen"),
    [
        (["train", "--device", "0"], None, ["train", "--device", "cuda"], "0"),
        (["train", "--device=cuda:1"], None, ["train", "--device", "cuda"], "1"),
        (["train", "--device", "1"], "3,5", ["train", "--device", "cuda"], "5"),
        (["train", "--device", "cpu"], None, ["train", "--device", "cpu"], None),
        (["run", "--", "x.py", "--device", "0"], None, ["run", "--", "x.py", "--device", "0"], None),
    ],
)
def test_a_device_by_its_number_is_the_only_one_seen(words, visible, left, seen):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert choose_card(words, environment) == left
    assert environment.get("CUDA_VISIBLE_DEVICES") == seen


def test_a_device_that_is_hidden_is_refused():
    with pytest.raises(UsageError, match="--device 2"):
        choose_card(["train", "--device", "2"], {"CUDA_VISIBLE_DEVICES": "0"})
