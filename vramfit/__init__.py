"""vramfit: training that fits the card.

The public face is small, and loads torch only when it is used: describe a `Job`, `predict` one trial of it on a card
that is not here, `fit` it to the card that is, `train` a `Task`, or hand any training loop to `find_batch_size`.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vramfit._version import __version__ as __version__
from vramfit.allocator_environment import check_environment

_HOMES = {
    "Job": "vramfit.jobs.job",
    "Task": "vramfit.training.task",
    "Judgement": "vramfit.training.task",
    "RunOptions": "vramfit.training.run_options",
    "train": "vramfit.training.trainer",
    "predict": "vramfit.prediction.predict",
    "fit": "vramfit.probe.fit",
    "fit_lengths": "vramfit.probe.lengths",
    "LengthPlan": "vramfit.plan.length_plan",
    "TokenBudgetSampler": "vramfit.training.token_sampler",
    "find_batch_size": "vramfit.measure.find",
    "SearchResult": "vramfit.measure.find",
    "fits": "vramfit.integrations.accelerate",
    "recovering": "vramfit.training.loop_recovery",
    **dict.fromkeys(
        (
            "Budget",
            "EpochRecord",
            "JobKey",
            "Lever",
            "Machine",
            "OomEvent",
            "Plan",
            "Profile",
            "Schedule",
            "Trial",
            "Verdict",
        ),
        "vramfit.records",
    ),
    **dict.fromkeys(
        (
            "CannotWrite",
            "DataError",
            "NoUsableGpu",
            "NotFinite",
            "NotTraceable",
            "NothingFits",
            "OutOfMemory",
            "ProfileError",
            "UnknownCard",
            "UsageError",
            "VramfitError",
        ),
        "vramfit.errors",
    ),
}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  # built from the one list of homes


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vramfit' has no attribute '{name}'")
    if "torch" not in sys.modules:
        check_environment(os.environ)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)


if TYPE_CHECKING:
    from vramfit.errors import CannotWrite as CannotWrite
    from vramfit.errors import DataError as DataError
    from vramfit.errors import NotFinite as NotFinite
    from vramfit.errors import NothingFits as NothingFits
    from vramfit.errors import NotTraceable as NotTraceable
    from vramfit.errors import NoUsableGpu as NoUsableGpu
    from vramfit.errors import OutOfMemory as OutOfMemory
    from vramfit.errors import ProfileError as ProfileError
    from vramfit.errors import UnknownCard as UnknownCard
    from vramfit.errors import UsageError as UsageError
    from vramfit.errors import VramfitError as VramfitError
    from vramfit.integrations.accelerate import fits as fits
    from vramfit.jobs.job import Job as Job
    from vramfit.measure.find import SearchResult as SearchResult
    from vramfit.measure.find import find_batch_size as find_batch_size
    from vramfit.plan.length_plan import LengthPlan as LengthPlan
    from vramfit.prediction.predict import predict as predict
    from vramfit.probe.fit import fit as fit
    from vramfit.probe.lengths import fit_lengths as fit_lengths
    from vramfit.records import Budget as Budget
    from vramfit.records import EpochRecord as EpochRecord
    from vramfit.records import JobKey as JobKey
    from vramfit.records import Lever as Lever
    from vramfit.records import Machine as Machine
    from vramfit.records import OomEvent as OomEvent
    from vramfit.records import Plan as Plan
    from vramfit.records import Profile as Profile
    from vramfit.records import Schedule as Schedule
    from vramfit.records import Trial as Trial
    from vramfit.records import Verdict as Verdict
    from vramfit.training.loop_recovery import recovering as recovering
    from vramfit.training.run_options import RunOptions as RunOptions
    from vramfit.training.task import Judgement as Judgement
    from vramfit.training.task import Task as Task
    from vramfit.training.token_sampler import TokenBudgetSampler as TokenBudgetSampler
    from vramfit.training.trainer import train as train
