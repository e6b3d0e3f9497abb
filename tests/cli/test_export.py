"""`vramfit export`: formats, refusals, and what it says."""

import pytest
from made_checkpoint import make_checkpoint, make_films


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return make_checkpoint(make_films(folder / "films"), folder / "checkpoint_best.pth")


def test_the_file_lies_beside_the_checkpoint_and_the_check_is_told(vramfit, checkpoint):
    outcome = vramfit("export", str(checkpoint), "--to", "safetensors")
    assert outcome.code == 0, outcome.err
    path = checkpoint.with_suffix(".safetensors")
    assert f"{path} written, {path.stat().st_size / 2**20:.0f} MiB." in outcome.out
    assert "against PyTorch on 1 and 3 drawn films: heatmap values differ by at most 0 (allowed 1.0e-04" in outcome.out
    assert "In: films: uint8 [batch, 1, 64, 64]" in outcome.out
    assert outcome.err.startswith("Next: ")
    assert outcome.err.count("\n") == 1
    again = vramfit("export", str(checkpoint), "--to", "safetensors")
    assert (again.code, "--force" in again.err) == (8, True)
    assert vramfit("export", str(checkpoint), "--to", "safetensors", "--force").code == 0


def test_what_was_exported_is_a_checkpoint_to_infer_with(vramfit, checkpoint, tmp_path):
    weights = tmp_path / "خروجی" / "shared.safetensors"
    assert vramfit("export", str(checkpoint), "--output", str(weights)).code == 0
    folder = checkpoint.parent / "films" / "test" / "Cephalograms"
    words = ("infer", str(folder), "--device", "cpu", "--no-overlay", "--format", "csv")
    for source, name in ((weights, "one"), (checkpoint, "other")):
        assert vramfit(*words, "--checkpoint", str(source), "--output", str(tmp_path / name)).code == 0
    assert (tmp_path / "one" / "points.csv").read_bytes() == (tmp_path / "other" / "points.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "neither --to nor --output"),
        (["--output", "network.bin"], 2, "names no format"),
        (["--output", "network.onnx", "--to", "pt2"], 2, "says onnx and --to says pt2"),
        (["--to", "torchscript"], 2, "--to"),
    ],
)
def test_refusals_are_one_sentence(vramfit, checkpoint, words, code, said):
    outcome = vramfit("export", str(checkpoint), *words)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_said(vramfit, checkpoint):
    outcome = vramfit("export", str(checkpoint), "--output", str(checkpoint / "network.safetensors"))
    assert (outcome.code, "could not be written" in outcome.err) == (8, True)


def test_something_else_is_no_checkpoint(vramfit, tmp_path):
    other = tmp_path / "other.pth"
    other.write_text("nothing")
    for path, said in ((other, "no checkpoint of `vramfit train`"), (tmp_path / "nowhere.pth", "no such checkpoint")):
        outcome = vramfit("export", str(path), "--to", "onnx")
        assert (outcome.code, said in outcome.err) == (7, True)
