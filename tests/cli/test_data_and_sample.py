import json

import numpy as np
import pytest

from vramfit.cli.main import main
from vramfit.landmarks.data.image import read_film


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return ended.value.code, output.out, output.err


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "films"
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(folder), "--films", "6", "--height", "160"])
    assert not ended.value.code
    return folder


def test_sample_refuses_a_used_folder(films, capsys):
    code, _, error = run(capsys, "sample", films)
    assert code == 8
    assert "not empty" in error


def test_clean_set_checks_clean(films, capsys):
    code, output, _ = run(capsys, "data", "check", films)
    assert code == 0
    assert "29 landmarks" in output
    assert "Nothing is wrong." in output


def test_errors_exit_with_7_in_words_and_json(films, tmp_path, capsys):
    import shutil

    broken = shutil.copytree(films, tmp_path / "broken")
    (broken / "train/Cephalograms/001.png").write_bytes(b"")
    code, output, _ = run(capsys, "data", "check", broken)
    assert code == 7
    assert "error: unreadable_film: train/Cephalograms/001.png" in output
    assert output.splitlines()[-1].startswith("1 error, ")
    code, output, _ = run(capsys, "data", "check", broken, "--json")
    assert code == 7
    assert json.loads(output)["errors"] == 1


def test_preview_writes_a_picture_once(films, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))
    picture = tmp_path / "p.png"
    arguments = ("data", "preview", films, "--output", picture, "--image-size", "64", "64")
    assert run(capsys, *arguments)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, error = run(capsys, *arguments)
    assert code == 8
    assert "--force" in error
    assert run(capsys, *arguments, "--force")[0] == 0


def test_a_preview_draws_the_artefacts_asked_for_and_train_takes_them_too(films, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))
    pictures = []
    for words in ((), ("--artefacts", "1")):
        path = tmp_path / f"p{len(words)}.png"
        plain = ("--image-size", "64", "64", "--augmentation", "none", "--films", "1", "--draws", "1")
        code, _, error = run(capsys, "data", "preview", films, "--output", path, *plain, *words)
        assert (code, "--artefacts 1" in error) == (0, bool(words)), error
        pictures.append(read_film(path).astype(int))
    columns = np.abs(pictures[0] - pictures[1]).max(axis=0)
    assert columns[:68].max() == 0, "the film as it is"
    assert columns[68:].max() > 100
    code, _, error = run(capsys, "data", "preview", films, "--output", path, "--artefacts", "-0.1")
    assert (code, "--artefacts -0.1 is not a chance" in error) == (2, True)


def test_missing_folder_is_one_sentence(tmp_path, capsys):
    code, _, error = run(capsys, "data", "check", tmp_path / "none")
    assert code == 7
    assert "no such folder" in error
    assert "Traceback" not in error


def test_check_writes_a_page(vramfit, tmp_path):
    films, page = tmp_path / "films", tmp_path / "check.html"
    assert vramfit("sample", str(films), "--films", "8", "--height", "96").code == 0
    outcome = vramfit("data", "check", str(films), "--html", str(page))
    assert (outcome.code, f"Report written to {page}" in outcome.out) == (0, True), outcome.err
    assert "Nothing is wrong." in page.read_text(encoding="utf-8")
    again = vramfit("data", "check", str(films), "--html", str(page))
    assert (again.code, "give --force" in again.err) == (8, True)
