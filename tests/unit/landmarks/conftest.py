"""A small film set, made once, and copies of it to damage."""

import json
import shutil

import pytest

from vramfit.landmarks.sample.make import make_sample


@pytest.fixture(scope="session")
def sample_set(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("sample") / "films", films=8, height=128)


@pytest.fixture
def film_folder(sample_set, tmp_path):
    """A copy, under a name that is not ASCII."""
    return shutil.copytree(sample_set, tmp_path / "Röntgen فیلم")


@pytest.fixture
def edit_json():
    """Change one annotation file by a function of its content."""

    def edit(path, change):
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(change(content) or content), encoding="utf-8")

    return edit
