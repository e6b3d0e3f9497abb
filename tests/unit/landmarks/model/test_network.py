import pytest
import torch

from vramfit.errors import DataError, UsageError
from vramfit.landmarks.model import network as module
from vramfit.landmarks.model.network import HeatmapNetwork, full_name, load_weights


@pytest.fixture(scope="module")
def small():
    return HeatmapNetwork("hrnet_w18_small", 3).eval()


@pytest.mark.parametrize(("name", "millions"), [("hrnet_w18", 9.64), ("hrnet", 29.55), ("hrnet_w48", 65.87)])
def test_parameter_counts_are_those_of_hrnetv2(name, millions):
    with torch.device("meta"):
        network = HeatmapNetwork(name, 29)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_output_size_follows_the_stride(stride):
    with torch.device("meta"):
        heatmaps = HeatmapNetwork("hrnet_w18_small", 7, stride)(torch.empty(2, 1, 64, 96))
    assert heatmaps.shape == (2, 7, 64 // stride, 96 // stride)


def test_unknown_model_names_the_nearest():
    with pytest.raises(UsageError, match=r"'hrnt_w18'.*hrnet_w18"):
        full_name("hrnt_w18")


def test_weights_of_a_checkpoint_come_back(small, tmp_path):
    torch.save({"model": small.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    other = HeatmapNetwork("hrnet_w18_small", 3).eval()
    assert "a.pth" in load_weights(other, "hrnet_w18_small", str(tmp_path / "a.pth"))
    films = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(other(films), small(films))


def test_another_number_of_landmarks_keeps_the_backbone(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "a.pth")
    assert "2 of the head" in load_weights(HeatmapNetwork("hrnet_w18_small", 5), "", str(tmp_path / "a.pth"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_damaged_or_missing_weights_are_one_clear_error(small, tmp_path, content):
    file = tmp_path / "b.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.pth"):
        load_weights(small, "", str(file))


def test_weights_of_another_model_are_refused(small, tmp_path):
    with torch.device("meta"):
        shapes = HeatmapNetwork("hrnet_w30", 3).state_dict()
    # One zero each, seen as so many: a file of kilobytes.
    torch.save({key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}, tmp_path / "w30.pth")
    with pytest.raises(DataError, match="same --model"):
        load_weights(small, "", str(tmp_path / "w30.pth"))


def test_imagenet_weights_are_made_grey(small, monkeypatch):
    import timm

    colour = timm.create_model("hrnet_w18_small").state_dict()
    monkeypatch.setattr(module, "_imagenet_weights", lambda name: colour)
    assert "ImageNet" in load_weights(small, "hrnet_w18_small", "imagenet")
    torch.testing.assert_close(small.backbone.conv1.weight, colour["conv1.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(small.backbone.state_dict()["conv2.weight"], colour["conv2.weight"])


def test_no_hub_is_a_sentence_for_auto_and_an_error_for_imagenet(small, monkeypatch):
    def refuse(name):
        raise TimeoutError("no answer")

    monkeypatch.setattr(module, "_imagenet_weights", refuse)
    assert "no answer" in load_weights(small, "hrnet_w18_small", "auto")
    with pytest.raises(DataError, match="--weights none"):
        load_weights(small, "hrnet_w18_small", "imagenet")


def test_a_slow_hub_is_not_waited_for(monkeypatch):
    import threading

    monkeypatch.setattr(module, "HUB_PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "_ask_hub", lambda name, found: threading.Event().wait(1))
    with pytest.raises(TimeoutError):
        module._imagenet_weights("hrnet_w18")
