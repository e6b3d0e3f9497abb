"""The stages of an HRNet by name, from the film to the heatmaps, as they are frozen when a network is fine-tuned."""

from collections.abc import Iterable

from vramfit.errors import UsageError

# What timm calls them. A transition makes the branches that the stage after it works on.
STAGES = {
    "stem": ("conv1", "bn1", "conv2", "bn2"),
    "stage1": ("layer1",),
    "stage2": ("transition1", "stage2"),
    "stage3": ("transition2", "stage3"),
    "stage4": ("transition3", "stage4"),
}
BACKBONE = "backbone"


def stage_modules(stages: Iterable[str]) -> tuple[str, ...]:
    """The modules of `HeatmapNetwork` that are these stages; `backbone` is all of them.

    Raises:
        UsageError: no such stage.

    """
    modules: list[str] = []
    for stage in stages:
        if stage not in (*STAGES, BACKBONE):
            raise UsageError(f"HRNet has no stage '{stage}' to freeze; use {', '.join(STAGES)} or {BACKBONE}.")
        if stage == BACKBONE:
            return (BACKBONE,)
        modules += [f"{BACKBONE}.{module}" for module in STAGES[stage]]
    return tuple(dict.fromkeys(modules))
