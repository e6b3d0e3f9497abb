"""Write the shipped profiles anew, each as `vramfit probe --gpu CARD --image-size N --levers none` would.

They are predictions, and say so; `vramfit train --profile` proves one by a trial on the real card before it is used.
"""

from pathlib import Path

from vramfit.cli.main import main as vramfit
from vramfit.files import write_atomically
from vramfit.records import Profile

PROFILES = Path(__file__).resolve().parents[1] / "profiles"
CARDS = ("rtx3070ti",)
# The effective batch for each image size: that of the guide whose owners these profiles serve, or near it.
EFFECTIVE_BATCHES = {256: 8, 512: 6, 768: 6, 1024: 6}


def main() -> None:
    """One profile for each card and image size; stops at the first that fails."""
    for card in CARDS:
        for size, batch in EFFECTIVE_BATCHES.items():
            make(card, size, batch)


def make(card: str, size: int, effective_batch: int) -> None:
    """Probe one image size on one card and write its profile."""
    file = PROFILES / f"{card}-{size}.json"
    words = ["--gpu", card, "--image-size", str(size), "--effective-batch", str(effective_batch)]
    # Their owners train on Windows, whose allocator lacks one of the levers that cost no time.
    words += ["--levers", "none"]
    try:
        vramfit(["probe", *words, "--export", str(file), "--force"])
    except SystemExit as stop:
        if stop.code:
            raise
    _forget_loading(file)


def _forget_loading(file: Path) -> None:
    """How fast the machine that predicts would load films says nothing of the machine that will train."""
    profile = Profile.from_json(file.read_text(encoding="utf-8"), where=file)
    schedule = profile.schedule.model_copy(update={"loading": None})
    write_atomically(file, profile.model_copy(update={"schedule": schedule}).to_json())


if __name__ == "__main__":
    main()
