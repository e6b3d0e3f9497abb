import pickle
import sys

import pytest
import torch

from vramfit.cli.models import resolve_job
from vramfit.errors import UsageError
from vramfit.jobs.backbone import backbone_job
from vramfit.jobs.job import Job


def own_job() -> Job:
    return Job(model=torch.nn.Identity, batch=lambda n: n, loss=lambda o, t: o, optimizer=torch.optim.SGD)


def test_hrnet_is_the_landmark_job() -> None:
    job = resolve_job("hrnet", image_size=(256, 256), amp="bf16")
    assert (job.name, job.model_name, job.image_size, job.amp) == ("landmark", "hrnet_w32", (256, 256), "bf16")


def test_any_timm_model_is_a_classifier_at_its_own_size() -> None:
    job = resolve_job("timm:efficientnet_b1")
    assert (job.name, job.model_name, job.image_size) == ("backbone", "efficientnet_b1", (240, 240))
    images, classes = job.batch(2)
    assert images.shape == (2, 3, 240, 240)
    assert classes.dtype == torch.int64


def test_a_size_reaches_models_built_for_one() -> None:
    job = backbone_job("vit_tiny_patch16_224", image_size=(96, 96))
    with torch.device("meta"):
        assert job.model().pos_embed.shape[1] == 1 + 36


def test_backbone_jobs_pickle() -> None:
    job = pickle.loads(pickle.dumps(backbone_job("resnet10t", image_size=(64, 64))))
    assert job.model()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_a_factory_is_imported_and_called() -> None:
    assert resolve_job(f"{__name__}:own_job").loss("outputs", None) == "outputs"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet5", "near: .*resnet"),
        ("hrnet_w31", "hrnet_w"),
        ("resnet50", "timm:resnet50"),
        ("no.such.module:job", "cannot be imported"),
        (f"{__name__}:own_jobs", "near: own_job"),
        (f"{__name__}:pickle", "no function"),
        ("torch:Size", "must return a vramfit.Job"),
        ("json:dumps", "takes arguments"),
    ],
)
def test_unknown_names_say_what_is_near(name, said) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_job(name)


def test_an_option_the_job_does_not_have() -> None:
    with pytest.raises(UsageError, match="no option 'colour'"):
        resolve_job("hrnet", colour="red")


def test_a_factory_in_the_current_folder_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "a_job_from_here.py").write_text(f"from {__name__} import own_job\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert resolve_job("a_job_from_here:own_job").name == own_job().name
