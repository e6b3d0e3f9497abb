"""A signal that ends `vramfit run` ends the script, and all that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

# A script with a helper of its own; both say when they are there, and the script when it is asked to end.
SCRIPT = """
import pathlib, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
helper = subprocess.Popen([sys.executable, "-c", deaf])
def save(*_):
    time.sleep(0.3)
    pathlib.Path("saved").write_text(str(helper.poll()))
    sys.exit(0)
signal.signal(signal.SIGTERM, save if sys.argv[1] == "saves" else signal.SIG_IGN)
pathlib.Path("pids").write_text(f"{__import__('os').getpid()} {helper.pid}")
time.sleep(120)
"""
# A test run that outlives its terminal (nohup) ignores hang-ups and hands that on, so it is undone here.
WATCHED = """
import signal, sys
from vramfit.script import process_group
signal.signal(signal.SIGHUP, signal.SIG_DFL)
process_group.GRACE_S = float(sys.argv[2])
with process_group.script_group([sys.executable, "train.py", sys.argv[1]], for_real=True) as process:
    process.wait()
"""


def told(folder, *words):
    """Start a run in a folder; the run, and the numbers of the script's processes once these are there."""
    (folder / "train.py").write_text(SCRIPT)
    (folder / "watched.py").write_text(WATCHED)
    run = subprocess.Popen([sys.executable, "watched.py", *words], cwd=folder)
    while not (folder / "pids").exists() or not (folder / "pids").read_text():
        assert run.poll() is None
        time.sleep(0.05)
    return run, [int(number) for number in (folder / "pids").read_text().split()]


def is_running(number):
    try:
        return (
            Path(f"/proc/{number}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else _answers(number)
        )
    except FileNotFoundError:
        return False


def _answers(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def ended(numbers):
    deadline = time.monotonic() + 5
    while any(map(is_running, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, numbers))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_script_may_save_and_its_processes_end(tmp_path, number):
    run, processes = told(tmp_path, "saves" if number == signal.SIGTERM else "ignores", "20")
    run.send_signal(number)
    assert run.wait(20) == 128 + number
    assert ended(processes)
    assert (tmp_path / "saved").exists() == (number == signal.SIGTERM)


def test_a_script_that_does_not_end_is_ended(tmp_path):
    run, processes = told(tmp_path, "ignores", "0.2")
    run.terminate()
    assert run.wait(20) == 128 + signal.SIGTERM
    assert ended(processes)


def test_a_second_signal_does_not_wait(tmp_path):
    run, processes = told(tmp_path, "ignores", "60")
    run.terminate()
    time.sleep(0.3)
    run.terminate()
    assert run.wait(20) == 128 + signal.SIGTERM
    assert ended(processes)
