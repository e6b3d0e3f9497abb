"""What the hand-written guide promised for its own command lines, beside what is predicted or measured for them.

The guide's tables were for HRNet-W32 on an 8 GB RTX 3070 Ti, 200 epochs of 700 films, and nobody had measured them.
"""

from vramfit.errors import VramfitError
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.records import Profile, Trial
from vramfit.report.table import device_cell, epoch_cell
from vramfit.shipped import load_profile

# Its table by batch, at 768x768: memory and time.
_BY_BATCH = {
    6: ("7.5-8 GB", "12-16 h"),
    5: ("7-7.5 GB", "14-18 h"),
    4: ("6.5-7 GB", "15-20 h"),
    3: ("6-6.5 GB", "18-23 h"),
    2: ("5.5-6 GB", "20-30 h"),
    1: ("5-6 GB", "25-35 h"),
}
# Its other rows, by side and batch.
_BY_SIZE = {
    (256, 8): ("3-4 GB", "7-10 h"),
    (512, 4): ("4-5 GB", "13-20 h"),
    (512, 5): ("4-5 GB", "13-20 h"),
    (512, 6): ("4-5 GB", "13-20 h"),
    (1024, 1): ("6-7 GB", "27-40 h"),
}
# By side and batch.
PROMISED = {**{(768, batch): said for batch, said in _BY_BATCH.items()}, **_BY_SIZE}
_MODELS = ("hrnet", "hrnet_w32")
_WHY = (
    "The hours were the loader's: the guide decodes every film anew and draws its targets at full size on the CPU, 143 "
    "times slower than a cached film warped once (benchmarks/data_pipeline.py), and all else happens on the card here."
)


def guide_note(options: LandmarkJobOptions, profile: Profile | None, effective_batch: int) -> str | None:
    """What the guide promised for a run, what is known of it now, the plan, and why they differ; None for other runs.

    Without a profile of the run's own, as on a CPU, the shipped prediction for the guide's card stands in.
    """
    height, width = options.image_size
    promised = PROMISED.get((height, effective_batch))
    if promised is None or height != width or options.model not in _MODELS:
        return None
    profile = profile or _shipped(height)
    trial = profile.trial(profile.plan.micro_batch) if profile else None
    if profile is None or trial is None:
        return None
    memory, hours = promised
    return (
        f"The guide promised for batch {effective_batch} at {height}x{width}: {memory}, {hours} for 200 epochs. "
        f"{_known(profile, trial, effective_batch)} {_WHY}"
    )


def _known(profile: Profile, trial: Trial, effective_batch: int) -> str:
    steps = -(-effective_batch // trial.micro_batch)
    plan = f"batch {effective_batch} at once" if steps == 1 else f"{steps} micro-batches of {trial.micro_batch} a step"
    word = f"{trial.source} for the {profile.machine.card}" if trial.source == "predicted" else trial.source
    return (
        f"{word[0].upper()}{word[1:]}: {device_cell(trial)} GiB, "
        f"{epoch_cell(trial, profile.schedule, 200)} for 200 epochs; the plan is {plan}."
    )


def _shipped(side: int) -> Profile | None:
    try:
        return load_profile(f"rtx3070ti-{side}")
    except VramfitError:
        return None
