import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vramfit
from vramfit.cli.models import named_job, resolve_job
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
        ("resnett50", "timm:resnet50.*a model is hrnet or a timm HRNet.*hf:NAME, or file.py:function"),
        ("my_model.py", "file.py:function"),
        ("my_model.py", "'my_model.py' is a file; name its function too, as in my_model.py:job; a model is"),
        ("torch:resnet50", "no function 'resnet50'; timm has timm:resnet50; a model is hrnet"),
        ("nowhere.py:job", "no file 'nowhere.py'.*package:function of your own that returns a vramfit.Job"),
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


def test_a_job_may_be_named_itself(tmp_path) -> None:
    file = tmp_path / "holds_a_job.py"
    file.write_text(f"from {__name__} import own_job\n\njob = own_job()\nnumber = 1\n", encoding="utf-8")
    assert isinstance(resolve_job(f"{file}:job"), Job)
    with pytest.raises(UsageError, match="has no function 'number'; a model is"):
        resolve_job(f"{file}:number")


def test_the_job_of_the_readme_is_taken_without_a_trial(tmp_path, monkeypatch) -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")
    file = tmp_path / "job_of_the_readme.py"
    file.write_text(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0], encoding="utf-8")
    for name in ("predict", "fit"):
        monkeypatch.setattr(vramfit, name, lambda *_, **__: pytest.fail("a trial's process would start another"))
    assert resolve_job(f"{file}:job").batch(2)[0].shape == (2, 3, 224, 224)


def test_an_option_the_job_does_not_have() -> None:
    with pytest.raises(UsageError, match="no option 'colour'"):
        resolve_job("hrnet", colour="red")


def test_a_factory_in_the_current_folder_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "a_job_from_here.py").write_text(f"from {__name__} import own_job\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert resolve_job("a_job_from_here:own_job").name == own_job().name


def test_a_factory_is_found_in_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "jobs of mine" / "a_job_in_a_file.py"
    file.parent.mkdir()
    file.write_text(f"from {__name__} import own_job\n", encoding="utf-8")
    assert resolve_job(f"{file}:own_job").name == own_job().name
    (tmp_path / "json.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="name of another module"):
        resolve_job(f"{tmp_path / 'json.py'}:x")
    with pytest.raises(UsageError, match="no file"):
        resolve_job(f"{tmp_path / 'absent.py'}:x")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def job():\n    size = 3\n    return size / 0\n", r"py:3 `return size / 0`: ZeroDivisionError: division"),
        ("import torch\ndef job():\n    return torch.ones(2) @ torch.ones(3)\n", r"py:3 .*RuntimeError: "),
        ("def job(:\n", r"py:1: SyntaxError"),
        ("x = undefined\n", r"py:1 .*NameError: name 'undefined'"),
    ],
)
def test_a_factory_that_fails_is_named_with_its_line_and_error(tmp_path, monkeypatch, code, said) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / f"failing_{abs(hash(code))}.py"
    file.write_text(code, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        resolve_job(f"{file}:job")
    assert f"{file.stem}" in str(caught.value)
    assert "\n" not in str(caught.value)


OWN = f"{__name__}:sized_job"


def sized_job() -> Job:
    return replace(own_job(), amp="bf16", image_size=(32, 48))


def test_what_is_not_said_of_a_job_of_ones_own_stays_as_it_says() -> None:
    job = named_job(OWN)
    assert (job.amp, job.channels_last, job.image_size) == ("bf16", False, (32, 48))


def test_what_is_said_of_a_job_of_ones_own_is_applied_or_refused() -> None:
    assert named_job(OWN, amp="off").amp is None
    assert named_job(OWN, amp="fp16", channels_last=True, image_size=(32, 48)).channels_last
    with pytest.raises(UsageError, match=r"--image-size says nothing to .*sized_job"):
        named_job(OWN, image_size=(64, 64))


def test_a_model_by_its_name_has_defaults() -> None:
    job = named_job("hrnet")
    assert (job.amp, job.image_size) == ("fp16", (768, 768))
    assert named_job("hrnet", amp="off").amp is None
