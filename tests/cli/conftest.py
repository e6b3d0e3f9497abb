"""Fixtures of the command line's tests."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vramfit.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def vramfit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run one command in this process: `vramfit("probe", "--json").code`."""

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        captured = capsys.readouterr()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
