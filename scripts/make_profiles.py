"""Write the shipped profiles anew, each by the tool itself: `vramfit probe --gpu CARD --image-size N N --export FILE`.

They are predictions, and say so; `vramfit train --profile` proves one by a trial on the real card before it is used.
"""

from pathlib import Path

from vramfit.cli.main import main as vramfit

PROFILES = Path(__file__).resolve().parents[1] / "profiles"
CARDS = ("rtx3070ti",)
IMAGE_SIZES = (256, 512, 768, 1024)


def main() -> None:
    """One profile for each card and image size; stops at the first that fails."""
    for card in CARDS:
        for size in IMAGE_SIZES:
            make(card, size)


def make(card: str, size: int) -> None:
    """Probe one image size on one card and write its profile."""
    file = PROFILES / f"{card}-{size}.json"
    try:
        vramfit(["probe", "--gpu", card, "--image-size", str(size), str(size), "--export", str(file), "--force"])
    except SystemExit as stop:
        if stop.code:
            raise


if __name__ == "__main__":
    main()
