"""Fixtures that every test may use."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import warm_python

REPOSITORY = Path(__file__).resolve().parents[1]
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # there is a worker for each core; read when torch is loaded
hypothesis.settings.register_profile("untimed", deadline=None)  # an example may wait for a core
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The developers' test material, or a skip where it is absent."""
    folder = Path(os.environ.get("VRAMFIT_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the developers' test material is not here")
    return folder


@pytest.fixture(scope="session")
def warm_program() -> Iterator[Path | None]:
    """A program that does what `sys.executable` does, with torch loaded; None where there can be none."""
    if not warm_python.IS_POSSIBLE:
        yield None
        return
    with warm_python.serving() as program:
        yield program


@pytest.fixture(scope="module")
def warm_module(warm_program: Path | None) -> Iterator[None]:
    """Let the processes that a module's tests and fixtures start begin with torch loaded: seconds less for each."""
    with pytest.MonkeyPatch.context() as patch:
        if warm_program is not None:
            patch.setattr(sys, "executable", str(warm_program))
        yield


@pytest.fixture
def warm(warm_program: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `warm_module`, for one test."""
    if warm_program is not None:
        monkeypatch.setattr(sys, "executable", str(warm_program))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a card where there is none; torch loads only when there are such tests."""
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if not needy:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needy:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA card"))


def pytest_collection_finish() -> None:
    """Spare every later garbage collection the objects of torch and the like, which live as long as the tests do."""
    gc.freeze()
