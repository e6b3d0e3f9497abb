"""The run verb; what it does to a script is tested in unit/script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vramfit.script.command import parse_command
from vramfit.script.watching import watch_whole_run

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, torch
print("the script speaks")
size = int(sys.argv[sys.argv.index("--batch") + 1])
model = torch.nn.Linear(64, 64).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
while True:
    model(torch.randn(size, 64, device="cuda")).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.usefixtures("warm")
def test_the_answer_is_a_document_and_the_script_speaks_elsewhere(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    words = ("run", "--gpu", "rtx3070ti", "--json", "--export", "out.json", "--", "python", "train.py", "--batch", "4")
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "vramfit", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["command"] == ["python", "train.py", "--batch", "4"]
    (trial,) = answer["profile"]["trials"]
    assert (trial["micro_batch"], trial["verdict"], trial["source"]) == (4, "fits", "predicted")
    assert trial["device_used_band_bytes"][0] < trial["device_used_bytes"] < trial["device_used_band_bytes"][1]
    assert trial["step_time_s"] > 0
    assert answer["peak"]["peak_bytes"] == trial["device_used_bytes"]
    assert "timeline" not in answer["peak"]
    announced, _, spoken = done.stderr.partition("assumed (a loss is 1):")
    assert announced
    assert "the script speaks" in spoken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "train.py"]


@pytest.mark.usefixtures("warm")
def test_the_answer_comes_first_and_what_was_assumed_last(vramfit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(
        SCRIPT.replace("    optimizer.step()", "    optimizer.step(); model.weight[0, 0].item()")
    )
    done = vramfit("run", "--gpu", "rtx3070ti", "--", "python", "train.py", "--batch", "4")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[-1].startswith("Assumed of values that only a card has: a number read from the card is 1 (train.py:")
    assert sum("Assumed" in line for line in lines) == 1
    assert done.err.splitlines()[-1] == "Next: python train.py --batch 4"
    short = vramfit("run", "--gpu", "rtx3070ti", "--vram", "300MB", "--", "python", "train.py", "--batch", "4")
    assert "Next: the same with --levers auto" in short.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--", "python", "absent.py"), "no file absent.py"),
        (("--maximum", "3", "--", "python", "-m", "x"), "--find"),
        (("--find", "b", "--effective-batch", "8", "--", "python", "-m", "x"), "--accumulation"),
        (("--gpu", "rtx3070tl", "--", "python", "-m", "x"), "RTX 3070 Ti"),
        (("--vram", "8", "--", "python", "-m", "x"), "not a memory size"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(vramfit, words, said):
    done = vramfit("run", *words)
    assert done.code == 2
    assert said in done.err


LEAKING = """
import torch

torch.set_num_threads(1)
model = torch.nn.Linear(8, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
total = 0
for step in range(160):
    torch.ones(900, 900) @ torch.ones(900, 900)
    loss = model(torch.ones(2, 8)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total = total + loss
print("the script's own last word")
raise SystemExit(3)
"""


@pytest.mark.usefixtures("warm")
def test_a_watched_run_is_the_scripts_own_and_tells_what_grows(tmp_path, capfd):
    from vramfit.cli.main import main

    (tmp_path / "train.py").write_text(LEAKING, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["run", "--watch", "--", "python", str(tmp_path / "train.py")])
    printed = capfd.readouterr()
    assert stop.value.code == 3
    assert "the script's own last word" in printed.out
    assert "total = total + loss at train.py:14 keeps the graph of every step" in printed.err


def test_watch_lets_the_script_run_and_takes_no_card(vramfit):
    done = vramfit("run", "--watch", "--gpu", "t4", "--", "python", "train.py")
    assert done.code == 2
    assert "--gpu" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("--levers", "none"),
        ("--reserve", "1GB"),
        ("--steps", "3"),
        ("--whole-run",),
        ("--json",),
        ("--mig", "1g.10gb"),
        ("--memory", "8GB"),
        ("--force",),
    ],
)
def test_watch_refuses_each_option_that_it_has_no_use_for(vramfit, words):
    done = vramfit("run", "--watch", *words, "--", "python", "-m", "this")
    assert done.code == 2
    assert words[0] in done.err


def test_watch_refuses_a_launcher_of_several_processes(vramfit, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    done = vramfit("run", "--watch", "--", "torchrun", "--nproc_per_node", "2", str(tmp_path / "train.py"))
    assert done.code == 2
    assert "starts 2" in done.err


STOPPED = """
import os, signal, sys, time
print("setting", os.environ["SETTING"], flush=True)
try:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    open(sys.argv[1], "w").write("saved")
    raise
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_watched_script_has_its_settings_and_saves_at_ctrl_c(tmp_path, monkeypatch, capfd):
    (tmp_path / "train.py").write_text(STOPPED, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert watch_whole_run(parse_command(["SETTING=7", "python", "train.py", "saved.txt"])) == 130
    assert "setting 7" in capfd.readouterr().out
    assert (tmp_path / "saved.txt").read_text() == "saved"
