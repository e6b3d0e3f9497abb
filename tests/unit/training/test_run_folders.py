"""A new run never overwrites an earlier one."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from vramfit.errors import CannotWrite, DataError
from vramfit.training.checkpoint import load
from vramfit.training.run_folders import log_folder, make_room, resume_file

NOW = datetime(2026, 11, 23, 6, 15)


def used(folder):
    folder.mkdir(exist_ok=True)
    for name in ("checkpoint_best.pth", "checkpoint_latest.pth", "profile.json", "notes.txt"):
        (folder / name).write_text(name)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_earlier_run_moves_and_what_is_not_ours_stays(tmp_path):
    said = make_room(used(tmp_path), None, NOW)
    moved = tmp_path / "previous_20261123_061500"
    assert said == f"{tmp_path} held an earlier run: its 3 files are now in {moved}."
    assert names(tmp_path) == ["notes.txt", moved.name]
    assert names(moved) == ["checkpoint_best.pth", "checkpoint_latest.pth", "profile.json"]


def test_exports_move_with_their_checkpoints(tmp_path):
    for name in ("checkpoint_best.onnx", "checkpoint_best.pt2", "checkpoint_latest.safetensors", "mine.onnx"):
        (used(tmp_path) / name).touch()
    make_room(tmp_path, None, NOW)
    assert names(tmp_path) == ["mine.onnx", "notes.txt", "previous_20261123_061500"]


def test_a_resumed_checkpoint_keeps_its_export_however_late_that_was_made(tmp_path):
    files = ("checkpoint_best.pth", "checkpoint_latest.pth", "checkpoint_best.onnx", "checkpoint_latest.onnx")
    for second, name in enumerate(files, 1):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (second, second))
    make_room(tmp_path, tmp_path / "checkpoint_best.pth", NOW)
    assert names(tmp_path / "previous_20261123_061500") == ["checkpoint_latest.onnx", "checkpoint_latest.pth"]


def test_two_runs_in_one_second_move_to_two_folders(tmp_path):
    make_room(used(tmp_path), None, NOW)
    make_room(used(tmp_path), None, NOW)
    assert "previous_20261123_061500_2" in names(tmp_path)


def test_a_run_that_goes_on_from_an_earlier_checkpoint_keeps_the_later_ones_aside(tmp_path):
    for second, name in enumerate(("checkpoint_epoch_010.pth", "checkpoint_best.pth", "checkpoint_latest.pth"), 1):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (second, second))
    (tmp_path / "profile.json").touch()
    said = make_room(tmp_path, tmp_path / "checkpoint_best.pth", NOW)
    moved = tmp_path / "previous_20261123_061500"
    assert said == f"Files later than checkpoint_best.pth: 1, now in {moved}."
    assert names(moved) == ["checkpoint_latest.pth"]
    assert names(tmp_path) == ["checkpoint_best.pth", "checkpoint_epoch_010.pth", moved.name, "profile.json"]


def test_a_run_that_goes_on_keeps_its_files(tmp_path):
    before = names(used(tmp_path))
    assert make_room(tmp_path, tmp_path / "checkpoint_latest.pth", NOW) is None
    assert names(tmp_path) == before


def test_a_run_resumed_from_elsewhere_makes_room(tmp_path):
    assert make_room(used(tmp_path / "here"), used(tmp_path / "there") / "checkpoint_latest.pth", NOW)


def test_halves_of_a_killed_run_are_cleared_away(tmp_path):
    for name in ("checkpoint_latest.pth", "profile.json"):
        (tmp_path / f".{name}.ab12.partial").write_text("half")
    assert make_room(tmp_path, None, NOW) is None
    assert names(tmp_path) == []


def test_a_folder_that_refuses_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CannotWrite, match=r"could not be moved \(Permission denied\)"):
        make_room(used(tmp_path), None, NOW)


def test_logs_of_two_runs_in_one_second_are_apart(tmp_path):
    first = log_folder(tmp_path, "hrnet", NOW)
    first.mkdir()
    assert first.name == "hrnet_20261123_061500"
    assert log_folder(tmp_path, "hrnet", NOW).name == "hrnet_20261123_061500_2"


def test_resume_alone_means_the_latest(tmp_path):
    assert resume_file("latest", tmp_path) == tmp_path / "checkpoint_latest.pth"
    assert resume_file("a/b.pth", tmp_path) == Path("a/b.pth")
    assert resume_file(None, tmp_path) is None


def test_a_missing_checkpoint_names_one_that_is_there(tmp_path):
    with pytest.raises(DataError, match=r"is to read\.$"):
        load(tmp_path / "checkpoint_latest.pth")
    (tmp_path / "checkpoint_best.pth").touch()
    with pytest.raises(DataError, match=r"such as checkpoint_best\.pth, which is there"):
        load(tmp_path / "checkpoint_latest.pth")
