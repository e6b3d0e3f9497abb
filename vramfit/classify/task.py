"""The classification task: a timm model, folders of images, and top-1 and top-5 accuracy. B batch, K classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vramfit.classify.data import ImageSamples, read_classes
from vramfit.classify.options import ClassifyOptions
from vramfit.errors import DataError
from vramfit.jobs.backbone import backbone_job
from vramfit.jobs.job import Job
from vramfit.jobs.param_groups import adamw
from vramfit.training.listeners import Listener, RunSummary
from vramfit.training.task import Judgement, Rows, Task
from vramfit.training.trainer import train as train_task

_AUGMENTATION: dict[str, dict[str, Any]] = {
    "none": {"no_aug": True},
    "standard": {"color_jitter": 0.4},
    "rand-augment": {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25},
}


def train(options: ClassifyOptions, listeners: Sequence[Listener] = ()) -> RunSummary:
    """Train a classifier on a folder of images; errors as those of `vramfit.train`."""
    return train_task(open_images(options), options, listeners)


def open_images(options: ClassifyOptions) -> "ClassifyTask":
    """The task of a folder of images; DataError where it holds none, UsageError where timm has no such model."""
    from timm.data.transforms_factory import create_transform

    name = options.model.removeprefix("timm:")
    job = backbone_job(name, image_size=options.image_size, amp=options.amp, channels_last=options.channels_last)
    classes, training, validation = read_classes(options.dataset_path, options.seed)
    size = job.image_size or (224, 224)
    changed = create_transform((3, *size), is_training=True, **_AUGMENTATION[options.augmentation])
    plain = create_transform((3, *size), is_training=False)
    job = replace(
        job,
        model=partial(create, job.model, len(classes)),
        batch=partial(synthetic_batch, size, len(classes)),
        optimizer=partial(adamw, learning_rate=options.learning_rate, weight_decay=options.weight_decay),
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        cudnn_benchmark=options.cudnn_benchmark,
        name="classify",
    )
    samples = ImageSamples(tuple(training), changed, options.seed), ImageSamples(tuple(validation), plain)
    return ClassifyTask(job, *samples, classes, name, options.weights)


@dataclass(frozen=True)
class ClassifyTask(Task):
    """Images and a classifier of them; `model` is timm's name, `weights` what training starts from."""

    job: Job
    training: ImageSamples
    validation: ImageSamples
    classes: tuple[str, ...]
    model: str
    weights: str = "auto"
    metrics: tuple[str, ...] = field(default=("top1", "top5"), init=False)

    def start_weights(self, model: nn.Module) -> str:
        """Load `weights` into a new network; DataError where a file, or ImageNet's, cannot be loaded."""
        import timm

        if self.weights == "none":
            return "Weights: random."
        if self.weights in ("auto", "imagenet"):
            try:
                whole = timm.create_model(self.model, pretrained=True, num_classes=len(self.classes))
            except Exception as error:  # no weights of that name, no network, no space: each raises its own
                if self.weights == "imagenet":
                    raise DataError(f"--weights imagenet: {error}; use none, or a file.") from None
                return f"Weights: random, for pretrained ones of {self.model} cannot be loaded here."
            model.load_state_dict(whole.state_dict())
            return f"Weights: timm's pretrained {self.model}, with a new classifier."
        try:
            timm.models.load_checkpoint(model, str(Path(self.weights)))
        except (OSError, RuntimeError, KeyError) as error:
            raise DataError(f"--weights {self.weights}: {error}; use weights of {self.model}.") from None
        return f"Weights: {self.weights}."

    def rows(self, outputs: Tensor, indices: Sequence[int]) -> Rows:
        """Whether the class is the first, and whether it is among the first five, Bx2 of 0 and 1."""
        truth = torch.tensor([self.validation.entries[index][1] for index in indices], device=outputs.device)
        first = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == truth[:, None]
        hits: Rows = torch.stack([first[:, 0], first.any(dim=1)], dim=1).double().cpu().numpy()
        return hits

    def judge(self, rows: Rows) -> Judgement:
        """Top-1 and top-5 accuracy, shares of 1; the best epoch has the highest top-1."""
        shares = dict(zip(self.metrics, rows.mean(axis=0).tolist(), strict=True))
        return Judgement(shares, best_by="top1", higher_is_better=True)

    def metric_words(self, metrics: Mapping[str, float]) -> list[str]:
        """Such as `top-1 93.1 %`."""
        return [f"top-{name[-1]} {100 * metrics[name]:.1f} %" for name in self.metrics if name in metrics]

    def describe(self, job: Job) -> dict[str, Any]:
        """Model, classes in order, image size and levers."""
        chosen = {"image_size": list(job.image_size or ()), "levers": [lever.model_dump() for lever in job.levers]}
        return {"kind": "classify", "model": self.model, "classes": list(self.classes), **chosen}


def create(build: Callable[[], nn.Module], classes: int) -> nn.Module:
    """A timm model with a classifier of so many classes."""
    network: Any = build()
    network.reset_classifier(classes)
    return network  # type: ignore[no-any-return]  # timm's models are modules


def synthetic_batch(image_size: tuple[int, int], classes: int, samples: int) -> tuple[Tensor, Tensor]:
    """Images float32 B3HW and class numbers int64 B, of no meaning; no random state is touched."""
    images = torch.linspace(-1, 1, samples * 3 * image_size[0] * image_size[1])
    return images.view(samples, 3, *image_size), torch.arange(samples) % classes
