"""Make the pictures of docs/pictures from real output: the terminal as SVG, the three pages as PNG.

    python scripts/make_pictures.py --work FOLDER

Runs the commands of `COMMANDS` in a terminal of 110 columns, each once: what lies in FOLDER is used again. The pages
are photographed by a headless Chromium (`chromium`, or the one that CHROMIUM names), light and dark, 1280 and 390
pixels wide; docs/pictures keeps the light ones of 1280.
"""

import argparse
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
COLUMNS = 110
_SMALL = ("--model", "hrnet_w18_small_v2", "--image-size", "128")
# What each makes, by the file that it leaves.
COMMANDS: dict[str, tuple[str, ...]] = {
    "probe.html": ("probe", "--gpu", "rtx3070ti", "--html", "probe.html"),
    "explain.html": ("explain", "--gpu", "rtx3070ti", "--batch-size", "6", "--html", "explain.html"),
    "films": ("sample", "films", "--films", "40", "--height", "320"),
    "run": (
        *("train", "--dataset-path", "films", *_SMALL, "--batch-size", "4", "--epochs", "8", "--warmup-epochs", "1"),
        *("--lr", "2e-3", "--weights", "none", "--device", "cpu", "--workers", "0", "-o", "run", "--log-dir", "logs"),
    ),
    "evaluation.html": (
        *("evaluate", "run/checkpoint_best.pth", "--dataset-path", "films", "--device", "cpu"),
        *("--html", "evaluation.html"),
    ),
}
PAGES = ("probe.html", "explain.html", "evaluation.html")
HEIGHT, SHOWN = 2400, 1000


def main() -> None:
    """Run what is missing, and draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what the commands write")
    work: Path = parser.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    for made, words in COMMANDS.items():
        if not (work / made).exists():
            (work / f"{made}.ansi").write_bytes(run_in_terminal(words, work))
    draw_terminal(COMMANDS["probe.html"], (work / "probe.html.ansi").read_bytes(), PICTURES / "probe.svg")
    for page in PAGES:
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            photograph(work / page, work / f"{page}-{width}-{scheme}.png", width, scheme)
        keep(work / f"{page}-1280-light.png", PICTURES / f"{page.removesuffix('.html')}.png")


def run_in_terminal(words: tuple[str, ...], folder: Path) -> bytes:
    """What a command prints on a terminal of COLUMNS; its stderr, where progress stands, goes past it."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "vramfit", *words]
    with subprocess.Popen(command, cwd=folder, stdout=slave, env=environment) as child:
        os.close(slave)
        parts = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(master)
    if child.returncode:
        raise SystemExit(f"`vramfit {' '.join(words)}` ended with {child.returncode}")
    return b"".join(parts)


def draw_terminal(words: tuple[str, ...], printed: bytes, file: Path) -> None:
    """A terminal with a command and what it printed."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    console.print(Text(f"$ vramfit {' '.join(words)}", "bold"))
    console.print(Text.from_ansi(printed.decode().replace("\r\n", "\n").rstrip()))
    console.save_svg(str(file), title="vramfit")


def photograph(page: Path, picture: Path, width: int, scheme: str) -> None:
    """A page as a browser shows it."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium is here; install one, or name it with CHROMIUM.")
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *dark),
            *(f"--window-size={width},{HEIGHT}", f"--screenshot={picture}", page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )


def keep(picture: Path, file: Path) -> None:
    """The top of a picture in few colours: a page is mostly one."""
    with Image.open(picture) as image:
        top = image.convert("RGB").crop((0, 0, image.width, min(SHOWN, image.height)))
        top.quantize(64).save(file, optimize=True)


if __name__ == "__main__":
    main()
