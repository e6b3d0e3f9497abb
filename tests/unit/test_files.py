import errno

import pytest

from vramfit.errors import CannotWrite
from vramfit.files import write_atomically


def test_a_file_appears_with_its_folders(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", "é")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "é".encode()


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "keep.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CannotWrite, match="No space left"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_any_other_failure_leaves_no_rest_either(tmp_path):
    def fail(file):
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        write_atomically(tmp_path / "new.bin", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWrite, match="could not be written"):
        write_atomically(tmp_path / "file" / "below.txt", "x")
