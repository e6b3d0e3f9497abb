"""What a script writes goes to the scratch folder, where it finds it again; the files themselves stay as they are."""

import os
import shutil
import tarfile
import tempfile
from multiprocessing.heap import Arena
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from vramfit.script.scratch_files import ScratchFiles
from vramfit.script.swapped_files import scratch_files


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "work"
    (place / "data" / "deep").mkdir(parents=True)
    (place / "data" / "a.txt").write_text("a")
    (place / "data" / "deep" / "b.txt").write_text("b")
    (place / "log.txt").write_text("one\n")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def scratch(tmp_path):
    place = tmp_path / "scratch"
    place.mkdir()
    return ScratchFiles(place)


def append():
    with open("log.txt", "a") as file:
        file.write("two\n")
    assert Path("log.txt").read_text() == "one\ntwo\n"


def overwrite():
    Path("data/a.txt").write_text("other")
    assert Path("data/a.txt").read_text() == "other"
    assert Path("data/a.txt").stat().st_size == 5


def make():
    os.makedirs("out/x/y", exist_ok=True)
    Path("out/x/y/z.bin").write_bytes(b"z")
    assert os.listdir("out/x/y") == ["z.bin"]
    assert sorted(os.listdir()) == ["data", "log.txt", "out"]
    with pytest.raises(FileExistsError):
        os.mkdir("out")


def remove():
    os.remove("log.txt")
    assert not Path("log.txt").exists()
    assert "log.txt" not in os.listdir()
    with pytest.raises(FileNotFoundError):
        open("log.txt")
    with pytest.raises(FileNotFoundError):
        os.remove("log.txt")
    Path("log.txt").write_text("new")
    assert Path("log.txt").read_text() == "new"


def remove_tree():
    shutil.rmtree("data")
    assert not Path("data").exists()
    os.makedirs("data/fresh")
    assert os.listdir("data") == ["fresh"]


def move():
    os.replace("log.txt", "log.old")
    assert Path("log.old").read_text() == "one\n"
    assert not Path("log.txt").exists()
    os.rename("data", "moved")
    assert Path("moved/deep/b.txt").read_text() == "b"
    assert not Path("data").exists()


def copy():
    shutil.copytree("data", "copy")
    shutil.copy2("log.txt", "copy/log.txt")
    assert sorted(str(path) for path in Path("copy").rglob("*.txt")) == [
        str(Path("copy/a.txt")),
        str(Path("copy/deep/b.txt")),
        str(Path("copy/log.txt")),
    ]


def low_level():
    number = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(number, b"x")
    os.close(number)
    assert Path("log.txt").read_bytes() == b"x"
    os.truncate("data/a.txt", 0)
    assert Path("data/a.txt").read_bytes() == b""
    os.chmod("log.txt", 0o600)


def into_nowhere():
    with pytest.raises(FileNotFoundError):
        open("absent/file.txt", "w")
    with pytest.raises(FileExistsError):
        open("log.txt", "x")


def change_folder():
    os.makedirs("run")
    os.chdir("run")
    Path("here.txt").write_text("h")
    assert Path("here.txt").read_text() == "h"


ACTIONS = [append, overwrite, make, remove, remove_tree, move, copy, low_level, into_nowhere, change_folder]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_the_script_sees_what_it_did_and_nobody_else_does(folder, scratch, action):
    before = contents(folder)
    with scratch_files(scratch):
        action()
    os.chdir(folder)
    assert contents(folder) == before


def test_what_was_written_is_told(folder, scratch):
    with scratch_files(scratch):
        Path("a.bin").write_bytes(b"")
        Path("b.bin").write_bytes(b"")
        os.remove("b.bin")
    assert scratch.written == (str(folder / "a.bin"),)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no shared memory as files here")
def test_files_in_shared_memory_are_the_scripts_own_too(scratch):
    with scratch_files(scratch):
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        (folder / "cache.npy").write_bytes(b"c")
        assert (folder / "cache.npy").read_bytes() == b"c"
    assert not folder.exists()
    assert scratch.written[-1] == str(folder / "cache.npy")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no shared memory as files here")
def test_what_processes_share_still_works(scratch):
    with scratch_files(scratch):
        block = SharedMemory(create=True, size=16)
        try:
            block.buf[0] = 7
            again = SharedMemory(name=block.name)
            assert again.buf[0] == 7
            again.close()
        finally:
            block.close()
            block.unlink()
        memory = Arena(4096).buffer
        memory[0] = 3
        assert memory[0] == 3


def test_an_empty_folder_that_was_made_is_listed_in_every_way(folder, scratch):
    with scratch_files(scratch):
        os.makedirs("runs/empty")
        assert list(Path("runs/empty").glob("*")) == []
        assert list(os.scandir("runs/empty")) == []
        assert os.listdir("runs/empty") == []
    assert not Path("runs").exists()


def test_an_archive_takes_what_was_written_before(folder, scratch):
    with scratch_files(scratch):
        Path("made.json").write_text("{}")
        with tarfile.open("all.tar.gz", "w:gz") as archive:
            archive.add("made.json")
        with tarfile.open("all.tar.gz") as archive:
            assert archive.getnames() == ["made.json"]
    assert not Path("made.json").exists()
    assert not Path("all.tar.gz").exists()


@pytest.mark.parametrize("make", [lambda path: open(path, "w"), os.mkdir], ids=["open", "mkdir"])
def test_an_error_names_the_path_as_the_script_has_it(folder, scratch, make):
    with scratch_files(scratch), pytest.raises(FileNotFoundError) as refused:
        make("nowhere/new")
    assert refused.value.filename == "nowhere/new"
    assert str(refused.value) == "[Errno 2] No such file or directory: 'nowhere/new'"
