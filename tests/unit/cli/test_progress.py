"""What a person sees while something is done, on a terminal alone."""

import sys
from io import StringIO

from vramfit.cli.progress import film_progress, working
from vramfit.cli.results import next_step, without_next_steps


class Terminal(StringIO):
    def isatty(self):
        return True


def test_a_wait_is_told_from_its_beginning_and_cleaned_away(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)  # here, for pytest sets it anew between a fixture and its test
    with working("probing hrnet") as told:
        assert "probing hrnet" in terminal.getvalue()
        told("batch 4, fits")
    with film_progress() as progress:
        assert "loading" in terminal.getvalue()
        progress("finding landmarks", 1, 2)
    assert terminal.getvalue().rstrip("\n").endswith("\x1b[2K")


def test_a_pipe_gets_nothing_of_it(capsys):
    with working("probing hrnet") as told:
        told("batch 4")
    with working("probing hrnet", shown=False) as told:
        told("batch 4")
    assert capsys.readouterr() == ("", "")


def test_the_next_step_stands_on_stderr_and_beside_no_document(capsys):
    next_step("vramfit train", as_json=False)
    next_step("vramfit train", as_json=True)
    with without_next_steps():
        next_step("vramfit train", as_json=False)
    assert capsys.readouterr() == ("", "Next: vramfit train\n")
