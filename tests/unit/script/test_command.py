"""The command that people train with, and setting one of its arguments."""

import sys
from pathlib import Path

import pytest

from vramfit.errors import UsageError
from vramfit.script.accumulation import accumulation_option
from vramfit.script.command import Command, parse_command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "train.py", "--lr", "1"], Command("file", "train.py", ("--lr", "1"))),
        (["python3", "-u", "-W", "ignore", "train.py"], Command("file", "train.py")),
        (["python3.11", "-m", "package.train", "fit"], Command("module", "package.train", ("fit",))),
        ([sys.executable, "train.py"], Command("file", "train.py")),
        (["train.py", "-b", "2"], Command("file", "train.py", ("-b", "2"))),
    ],
)
def test_what_runs(here, words, expected):
    assert parse_command(words) == expected


def test_an_entry_point_is_a_python_file(here, monkeypatch):
    tool = here / "bin" / "mytrain"
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable}\nprint()\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    assert parse_command(["mytrain", "--x"]) == Command("file", str(tool), ("--x",))


@pytest.mark.parametrize(
    ("words", "ranks", "target"),
    [
        (["torchrun", "--nproc_per_node=4", "--nnodes", "2", "train.py", "--lr", "1"], 8, ("file", "train.py")),
        (
            ["python", "-m", "torch.distributed.run", "--nproc-per-node", "2", "train.py", "--lr", "1"],
            2,
            ("file", "train.py"),
        ),
        (
            ["torchrun", "--standalone", "--nproc_per_node", "gpu", "-m", "package.train", "--lr", "1"],
            1,
            ("module", "package.train"),
        ),
    ],
)
def test_a_launchers_script_is_its_first_rank(here, words, ranks, target):
    command = parse_command(words)
    assert (command.kind, command.target) == target
    assert (command.world_size, command.arguments) == (ranks, ("--lr", "1"))
    assert dict(command.environment)["WORLD_SIZE"] == str(ranks)
    assert command.with_value("lr", 2).words() == [*words[:-1], "2"]


def test_accelerate_says_its_precision_and_ranks(here):
    pytest.importorskip("accelerate")
    words = ["accelerate", "launch", "--num_processes", "2", "--mixed_precision", "fp16", "train.py", "--x"]
    command = parse_command(words)
    assert (command.target, command.arguments, command.world_size) == ("train.py", ("--x",), 2)
    assert dict(command.environment)["ACCELERATE_MIXED_PRECISION"] == "fp16"
    with pytest.raises(UsageError, match="shares weights out"):
        parse_command(["accelerate", "launch", "--use_fsdp", "train.py"])


def test_settings_before_a_command_are_its_environment(here):
    command = parse_command(["OMP_NUM_THREADS=1", "A=b=c", "python", "train.py"])
    assert command.environment == (("OMP_NUM_THREADS", "1"), ("A", "b=c"))
    assert command.words() == ["OMP_NUM_THREADS=1", "A=b=c", "python", "train.py"]


@pytest.mark.parametrize(
    ("source", "arguments", "option"),
    [
        ("p.add_argument('--epochs'); p.add_argument('--grad-accum-steps')", (), "--grad-accum-steps"),
        (
            "from transformers import HfArgumentParser as H, TrainingArguments\nHfArgumentParser(TrainingArguments)",
            (),
            "--gradient_accumulation_steps",
        ),
        ("print()", ("trainer.accumulate_grad_batches=2",), "trainer.accumulate_grad_batches={}"),
        ("print()", ("--accum_iter", "4"), "--accum_iter"),
        ("p.add_argument('--accuracy')", ("--lr", "1"), None),
        ("not python (", (), None),
    ],
)
def test_a_scripts_own_option_for_accumulation_is_found(here, source, arguments, option):
    (here / "train.py").write_text(source)
    assert accumulation_option(Command("file", "train.py", arguments)) == option


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no command is given"),
        (["deepspeed", "train.py"], "starts processes in its own way"),
        (["torchrun", "--no-such-option", "train.py"], "torchrun does not take these options"),
        (["torchrun", "--nproc_per_node", "2", "absent.py"], "no file absent.py"),
        (["accelerate", "config"], "accelerate launch"),
        (["python", "absent.py"], "no file absent.py"),
        (["python", "-c", "print()"], "names no script"),
        (["no-such-program"], "neither Python nor a Python program"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(here, words, said):
    with pytest.raises(UsageError, match=said):
        parse_command(words)


def test_another_python_is_refused(here):
    other = here / "other" / "python"
    other.parent.mkdir()
    other.write_text("")
    with pytest.raises(UsageError, match="another Python"):
        parse_command([str(other), "train.py"])


@pytest.mark.parametrize(
    ("arguments", "option", "expected"),
    [
        ("--batch-size 8 --lr 1", "batch-size", "--batch-size 4 --lr 1"),
        ("--batch_size 8", "batch-size", "--batch_size 4"),
        ("--batch-size=8", "--batch_size", "--batch-size=4"),
        ("-b 8 x", "b", "-b 4 x"),
        ("-b 8 -b 9", "-b", "-b 8 -b 4"),
        ("--lr 1", "batch-size", "--lr 1 --batch-size 4"),
        ("--max_steps 1", "batch-size", "--max_steps 1 --batch_size 4"),
        ("", "b", "-b 4"),
        ("fit data.batch=8 x=1", "data.batch={}", "fit data.batch=4 x=1"),
        ("fit", "data.batch={}", "fit data.batch=4"),
    ],
)
def test_one_argument_is_set_where_it_stands(arguments, option, expected):
    command = Command("file", "train.py", tuple(arguments.split()))
    assert command.with_value(option, 4).arguments == tuple(expected.split())


def test_the_line_is_one_that_runs():
    assert Command("module", "a.b", ("x",)).words() == ["python", "-m", "a.b", "x"]
    assert Command("file", str(Path("d") / "t.py")).name == "t.py"
