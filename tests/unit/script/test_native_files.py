"""What libraries write past Python goes to the scratch folder, too, and is found there again."""

import sys

import pytest

from vramfit.script.native_files import native_files
from vramfit.script.scratch_files import ScratchFiles
from vramfit.script.swapped_files import scratch_files


def database():
    import sqlite3

    with sqlite3.connect("runs.db") as opened:
        opened.execute("create table runs (loss real)")
        opened.execute("insert into runs values (1.5)")
    assert sqlite3.connect("runs.db").execute("select loss from runs").fetchone() == (1.5,)
    assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)


def arrays():
    h5py = pytest.importorskip("h5py")
    with h5py.File("cache.h5", "w") as opened:
        opened["x"] = [1, 2, 3]
    with h5py.File("cache.h5", mode="a") as opened:
        opened["y"] = [4]
    with h5py.File("cache.h5") as opened:
        assert (opened["x"][2], opened["y"][0]) == (3, 4)


def pictures():
    import cv2
    import numpy as np
    from PIL import Image

    assert cv2.imwrite("a.png", np.full((4, 5, 3), 9, np.uint8))  # noqa: TID251  # as scripts do
    with Image.open("a.png") as opened:
        assert opened.size == (5, 4)
    Image.new("L", (6, 7)).save("b.png")
    assert cv2.imread("b.png").shape == (7, 6, 3)  # noqa: TID251  # as above


def tensors():
    torch = pytest.importorskip("torch")
    io = pytest.importorskip("torchvision.io")
    io.write_png(torch.zeros(3, 4, 5, dtype=torch.uint8), "c.png")
    assert io.read_image("c.png").shape == (3, 4, 5)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("write", [database, arrays, pictures, tensors], ids=lambda write: write.__name__)
def test_what_a_library_writes_is_found_again_and_changes_nothing_here(write, tmp_path, monkeypatch):
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(here)
    (here / "a.png").write_text("the user's")
    files = ScratchFiles(scratch)
    with scratch_files(files), native_files(files):
        write()
    assert [path.name for path in here.iterdir()] == ["a.png"]
    assert (here / "a.png").read_text() == "the user's"
    assert files.written


def test_a_library_is_changed_when_it_is_imported(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "sqlite3", raising=False)
    monkeypatch.chdir(tmp_path)
    files = ScratchFiles(tmp_path / "scratch")
    with native_files(files):
        import sqlite3

        changed = sqlite3.connect
    assert sqlite3.connect is not changed
