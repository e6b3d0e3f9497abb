"""From a model's name on the command line to a job."""

import difflib
from dataclasses import fields, replace
from typing import Any, Literal

from vramfit.choices import Amp
from vramfit.cli.factories import NoSuchFactory, job_from_factory
from vramfit.cli.options import DEFAULT_HUB_PRECISION, DEFAULT_PRECISION, DEFAULT_SIZE, HUB, TIMM, is_factory
from vramfit.errors import UsageError
from vramfit.jobs.hub.options import HubOptions
from vramfit.jobs.job import Job

_NOTHING_SAID = HubOptions()
# How a model is named, for whoever named one otherwise.
NAMING = (
    "a model is hrnet or a timm HRNet (landmarks), timm:NAME, hf:NAME, or file.py:function or package:function of your "
    "own that returns a vramfit.Job"
)


def named_job(
    model: str,
    *,
    image_size: tuple[int, int] | None = None,
    amp: Literal["fp16", "bf16", "off"] | None = None,
    channels_last: bool = False,
    hub: HubOptions = _NOTHING_SAID,
) -> Job:
    """The job that a command line names, with what it says of the step; None is what it does not say.

    A job of one's own keeps what is not said of it. `hub` is for Hugging Face models alone.

    Raises:
        UsageError: as `resolve_job`, an image size for a job that makes its own batches, or `hub` for another model.

    """
    precision: Amp | None = None if amp == "off" else amp
    if model.startswith(HUB):
        precision = precision if amp else DEFAULT_HUB_PRECISION
        return resolve_job(model, image_size=image_size, amp=precision, channels_last=channels_last, options=hub)
    if hub != _NOTHING_SAID:
        raise UsageError(
            f"--seq-len, --lora and --load-in are of Hugging Face models, and '{model}' is none; name one: "
            "--model hf:NAME."
        )
    if not is_factory(model):
        size, precision = image_size or DEFAULT_SIZE, precision if amp else DEFAULT_PRECISION
        return resolve_job(model, image_size=size, amp=precision, channels_last=channels_last)
    job = resolve_job(model)
    if image_size is not None and image_size != job.image_size:
        raise UsageError(
            f"--image-size says nothing to '{model}', whose Job makes its own batches; change it in that function."
        )
    return replace(job, amp=precision if amp else job.amp, channels_last=channels_last or job.channels_last)


def resolve_job(model: str, *, image_size: tuple[int, int] | None = None, **options: Any) -> Job:
    """The job that a name stands for.

    Args:
        model: `hrnet` or a timm HRNet's name for the landmark job, `timm:NAME` for classification, `hf:NAME` or
            `hf:FOLDER` for a Hugging Face model, or
            `package.module:factory` or `file.py:factory` for a function without arguments that returns a `Job`; the
            module is installed, or lies in the current folder.
        image_size: (height, width) in pixels; None for the job's own.
        options: what else `LandmarkJobOptions`, `backbone_job` or `hub_job` takes, such as amp; a factory gets none.

    Raises:
        UsageError: no such model, module or factory, or an option that the job does not have; names near misses.

    """
    sized = {**options, "image_size": image_size} if image_size else options
    if model.startswith(TIMM):
        return _backbone(model.removeprefix(TIMM), sized)
    if model.startswith(HUB):
        return _of_hub(model.removeprefix(HUB), sized)
    if is_factory(model):
        return _from_factory(model)
    return _landmark(model, sized)


def _backbone(name: str, options: dict[str, Any]) -> Job:
    from vramfit.jobs.backbone import backbone_job

    return backbone_job(name, **options)


def _of_hub(source: str, options: dict[str, Any]) -> Job:
    from vramfit.jobs.hub.job import hub_job

    return hub_job(source, **options)


def _from_factory(name: str) -> Job:
    import timm

    try:
        return job_from_factory(name)
    except NoSuchFactory as error:
        known = f"timm:{name.rpartition(':')[2]}"
        there = f"; timm has {known}" if timm.is_model(known.removeprefix("timm:")) else ""
        raise UsageError(f"{str(error).removesuffix('.')}{there}; {NAMING}.") from None


def _landmark(name: str, options: dict[str, Any]) -> Job:
    import timm

    from vramfit.landmarks.model.job import landmark_job
    from vramfit.landmarks.model.network import ALIASES
    from vramfit.landmarks.model.options import LandmarkJobOptions

    if name.endswith(".py"):
        raise UsageError(f"'{name}' is a file; name its function too, as in {name}:job; {NAMING}.")
    known = [*ALIASES, *timm.list_models("hrnet*")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
        if timm.is_model(name):
            said = f"near: {', '.join(near)}, or timm:{name} to train it as a classifier"
        else:
            close = [f"timm:{one}" for one in difflib.get_close_matches(name, timm.list_models(), n=2)]
            said = f"near: {', '.join([*near, *close])}; {NAMING}"
        raise UsageError(f"'{name}' is no model of the landmark job; {said}.")
    _check_options(options, {field.name for field in fields(LandmarkJobOptions)})
    return landmark_job(LandmarkJobOptions(model=name, **options))


def _check_options(options: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"the landmark job has no option '{unknown[0]}'; it has {', '.join(sorted(known))}.")
