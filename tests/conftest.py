"""Fixtures that every test may use."""

import gc
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The developers' test material, or a skip where it is absent."""
    folder = Path(os.environ.get("VRAMFIT_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the developers' test material is not here")
    return folder


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
