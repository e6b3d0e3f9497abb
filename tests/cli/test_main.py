"""Every way out of the command line: one sentence, one exit code."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit import errors
from vramfit.cli import main as shell
from vramfit.cli.arguments import normalise

HEAVY = ("torch", "timm", "cv2", "numpy", "pydantic", "rich", "tensorboard")


@pytest.fixture
def broken_verb(monkeypatch):
    """Make the command line raise a given error wherever it is called."""

    def install(error):
        def app(*args, **kwargs):
            raise error

        monkeypatch.setattr(shell, "app", app)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("odd"), 2),
        (errors.UnknownCard("odd"), 2),
        (errors.NothingFits("odd"), 3),
        (errors.NoUsableGpu("odd"), 4),
        (errors.ProfileError("odd"), 5),
        (errors.OutOfMemory("odd"), 6),
        (errors.DataError("odd"), 7),
        (errors.CannotWrite("odd"), 8),
        (errors.NotFinite("odd"), 1),
    ],
)
def test_a_vramfit_error_is_one_line_and_its_own_code(vramfit, broken_verb, error, code):
    broken_verb(error)
    outcome = vramfit("probe")
    assert (outcome.code, outcome.out, outcome.err) == (code, "", "vramfit: odd\n")


@pytest.mark.parametrize("debug", [["--debug", "probe"], ["probe", "--debug"], ["probe", "--json", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(vramfit, broken_verb, debug):
    broken_verb(errors.DataError("odd"))
    assert "Traceback" in vramfit(*debug).err
    assert "Traceback" not in vramfit("probe").err


def test_an_unexpected_error_says_how_to_learn_more(vramfit, broken_verb):
    broken_verb(ValueError("two\nlines"))
    outcome = vramfit("probe")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "ValueError (two lines)" in outcome.err
    assert "--debug" in outcome.err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_no_space_is_a_failure_to_write(vramfit, broken_verb, number):
    broken_verb(OSError(number, "refused", "/full/checkpoint.pth"))
    outcome = vramfit("train")
    assert outcome.code == 8
    assert "/full/checkpoint.pth" in outcome.err


@pytest.mark.parametrize("message", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_out_of_memory_of_any_face_is_code_6(vramfit, broken_verb, message):
    import torch  # noqa: F401  # only a process with torch can run out of GPU memory

    broken_verb(RuntimeError(message))
    assert vramfit("train").code == 6


def test_interruption_is_130(vramfit, broken_verb):
    broken_verb(KeyboardInterrupt())
    outcome = vramfit("train")
    assert (outcome.code, outcome.err) == (130, "vramfit: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize(("words", "code"), [("--help", 0), ("profile show rtx3070ti-768", 0), ("profile diff a b", 5)])
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_who_left_is_no_error(words, code, reader):
    command = f"{sys.executable} -m vramfit {words} | {reader} > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert "Error" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_reader_who_left_hides_no_other_exit_code():
    """A table was printed and then nothing fits: Python by itself would end with 120 and a complaint."""
    code = (
        "import sys; from vramfit.cli import main as m; from vramfit.errors import NothingFits\n"
        "def app(*a, **k): sys.stdin.readline(); print('table'); raise NothingFits('odd')\n"
        "m.app = app; m.main(['probe'])"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=buffered, **pipes) as child:
        child.stdout.close()
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.stderr.read() == b"vramfit: odd\n"
        assert child.wait(timeout=60) == 3


@pytest.mark.parametrize("words", [["nope"], ["probe", "--nope"], ["probe", "--mode", "guess"], ["probe", "--vram"]])
def test_usage_errors_are_one_line_and_2(vramfit, words):
    outcome = vramfit(*words)
    assert outcome.code == 2
    assert outcome.err.startswith("vramfit: ")
    assert outcome.err.count("\n") == 1


def test_no_arguments_is_help_and_0(vramfit):
    assert vramfit() == vramfit("--help")
    assert vramfit().code == 0
    assert "probe" in vramfit().out


def test_help_loads_nothing_heavy():
    code = f"import sys, vramfit.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_console_in_cp1252_shows_what_it_can(tmp_path: Path):
    code = (
        "import sys, typer; from vramfit.cli import main as m;"
        "m.app = lambda *a, **k: typer.echo('Aariz ' + chr(0x639) + ' ' + chr(0xe9)); m.main(['x'])"
    )
    environment = {"PYTHONIOENCODING": "cp1252", "PATH": "", "PYTHONPATH": str(Path(shell.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False, env=environment)
    assert (done.returncode, done.stdout.rstrip()) == (0, b"Aariz ? \xe9")


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["train", "--image_size", "768", "768"], ["train", "--image-size", "768x768"]),
        (["train", "--imgsz", "512", "640", "--epochs", "2"], ["train", "--imgsz", "512x640", "--epochs", "2"]),
        (["train", "--image-size", "768", "--batch", "6"], ["train", "--image-size", "768", "--batch", "6"]),
        (["train", "--save_dir=a_b"], ["train", "--save-dir=a_b"]),
        (["train", "--resume"], ["train", "--resume", "latest"]),
        (["train", "--resume", "--epochs", "2"], ["train", "--resume", "latest", "--epochs", "2"]),
        (["train", "--resume", "a_b.pth"], ["train", "--resume", "a_b.pth"]),
        (["infer", "--", "--odd_name.png"], ["infer", "--", "--odd_name.png"]),
    ],
)
def test_words_are_put_as_the_parser_knows_them(typed, parsed):
    assert normalise(typed) == (parsed, False)


@given(st.lists(st.text(max_size=12)))
def test_normalising_twice_changes_nothing(words):
    once, _ = normalise(words)
    assert normalise(once) == (once, False)
