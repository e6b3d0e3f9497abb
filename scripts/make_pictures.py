"""Make the pictures of docs/pictures and docs/gallery.md from real output.

    python scripts/make_pictures.py --work FOLDER

Every verb runs in terminals of 80 and 120 columns, drawn as SVG; every page is photographed by Chromium (`chromium`, or
the one that CHROMIUM names) at 1280 and 390 pixels, light and dark. What lies in FOLDER of an earlier run is used
again: remove FOLDER/80/NAME.ansi to run a command anew.
"""

import argparse
import io
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.text import Text

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PICTURES = DOCS / "pictures"
COLUMNS = (80, 120)
WIDTHS = {
    1280: (1300, 1000),
    390: (1400, 390),
}  # of a page: pixels of its height that are kept, and the picture's width
SCHEMES = ("light", "dark")

_GPU = ("--gpu", "rtx3070ti")
_SMALL = ("--model", "hrnet_w18_small_v2", "--image-size", "128")
_SHORT = (
    *("--batch-size", "4", "--epochs", "6", "--warmup-epochs", "1", "--lr", "2e-3", "--weights", "none"),
    *("--device", "cpu", "--workers", "0", "--save-every", "3"),
)
_TRAINED = ("run/checkpoint_best.pth", "--dataset-path", "films", "--device", "cpu")
_SCRIPT = ("--", "python", "train.py", "--batch-size", "64")


@dataclass(frozen=True)
class Shot:
    """A command whose output is drawn, and what it shows; with `page`, what its --html writes too.

    `code` is the exit code that it must have, `before` what is done to the folder first.
    """

    name: str
    title: str
    words: tuple[str, ...]
    page: bool = False
    code: int = 0
    before: Callable[[Path], object] | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """What is run."""
        return (*self.words, "--html", f"{self.name}.html") if self.page else self.words


def bring_script(folder: Path) -> None:
    """A training script as people have them."""
    script = (REPOSITORY / "benchmarks" / "scripts" / "plain_loop.py").read_text(encoding="utf-8")
    (folder / "train.py").write_text(script.replace("num_workers=4", "num_workers=2"), encoding="utf-8")


def widen_script(folder: Path) -> None:
    """The change that a check finds."""
    script = (folder / "train.py").read_text(encoding="utf-8")
    (folder / "train.py").write_text(script.replace("width=64", "width=96"), encoding="utf-8")


def bring_snapshot(folder: Path) -> None:
    """A memory snapshot that PyTorch recorded on a card."""
    shutil.copy(REPOSITORY / "tests" / "golden" / "snapshot.pickle", folder)


def spoil_films(folder: Path) -> None:
    """A film set with faults: two points swapped, one outside, a film cut short, one that lies in two splits."""
    root = shutil.copytree(folder / "films", folder / "spoiled", dirs_exist_ok=True)
    films = sorted((root / "train" / "Cephalograms").iterdir())
    films[1].write_bytes(films[1].read_bytes()[:2000])
    shutil.copy(films[2], root / "test" / "Cephalograms" / "900.png")
    annotations = root / "train" / "Annotations" / "Cephalometric Landmarks" / "Senior Orthodontists"
    for film, change in ((films[4], _swap), (films[6], _move)):
        file = annotations / f"{film.stem}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        change({entry["symbol"]: entry["value"] for entry in content["landmarks"]})
        file.write_text(json.dumps(content), encoding="utf-8")


def _swap(places: dict[str, dict[str, float]]) -> None:
    first, second = dict(places["Go"]), dict(places["Me"])
    places["Go"].update(second)
    places["Me"].update(first)


def _move(places: dict[str, dict[str, float]]) -> None:
    places["S"]["x"] += 4000


# In the order in which they run: later ones use what earlier ones made.
SHOTS = (
    Shot("doctor", "What is here", ("doctor",)),
    Shot("cards", "Cards that can be predicted for", ("cards", ">=12GB laptop")),
    Shot("probe", "What fits, how fast", ("probe", *_GPU), page=True),
    Shot("levers", "What makes 12 images fit", ("probe", *_GPU, "--levers", "auto", "--batch-size", "12"), page=True),
    Shot("sizes", "Image sizes", ("probe", *_GPU, "--image-sizes", "512,768,1024"), page=True),
    Shot("which-card", "Which card", ("probe", "--gpu", ">=12GB <=16GB ada", "--batch-size", "6"), page=True),
    Shot("explain", "Where the memory goes", ("explain", *_GPU, "--batch-size", "12"), page=True),
    Shot("replay", "A recorded run under other settings", ("replay", "snapshot.pickle"), before=bring_snapshot),
    Shot("snapshot", "What held the memory of a recorded run", ("explain", "snapshot.pickle"), page=True),
    Shot("run", "A script as it is", ("run", *_GPU, *_SCRIPT), before=bring_script),
    Shot("check-update", "What training takes, kept in a file", ("check", *_GPU, "--update", *_SCRIPT)),
    Shot("check", "The same after a change", ("check",), code=9, before=widen_script),
    Shot("profile-list", "Shipped profiles", ("profile", "list")),
    Shot("profile-show", "One of them", ("profile", "show", "rtx3070ti-768")),
    Shot("profile-diff", "Two beside each other", ("profile", "diff", "rtx3070ti-768", "rtx3070ti-512")),
    Shot("sample", "Films to try things with", ("sample", "films", "--films", "40", "--height", "320")),
    Shot("data-check", "Faults of a film set", ("data", "check", "spoiled"), page=True, code=7, before=spoil_films),
    Shot("data-convert", "A film set in another format", ("data", "convert", "films", "-o", "coco", "--to", "coco")),
    Shot("train", "Training", ("train", "--dataset-path", "films", *_SMALL, *_SHORT, "-o", "run")),
    Shot("evaluate", "How good it is", ("evaluate", *_TRAINED), page=True),
    Shot("compare", "Two checkpoints", ("evaluate", *_TRAINED, "--compare", "run/checkpoint_epoch_003.pth"), page=True),
    Shot("infer", "Points of films", ("infer", _TRAINED[0], "films/test", "--device", "cpu", "-o", "points")),
    Shot("export", "For other programs", ("export", _TRAINED[0], "--to", "onnx", "-o", "network.onnx")),
    Shot("demo", "The whole job", ("demo", "demo", "--epochs", "3")),
)


def main() -> None:
    """Run what is missing, and draw everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what the commands write")
    work: Path = parser.parse_args().work.resolve()
    for folder in (PICTURES / "terminal", PICTURES / "pages"):
        folder.mkdir(parents=True, exist_ok=True)
    for columns in COLUMNS:
        for shot in SHOTS:
            printed = output_of(shot, work / str(columns), columns)
            draw_terminal(shot, printed, columns, PICTURES / "terminal" / f"{shot.name}-{columns}.svg")
    with chromium() as browser:
        for shot in SHOTS:
            if shot.page:
                photograph_all(browser, work / str(COLUMNS[-1]) / f"{shot.name}.html")
    (DOCS / "gallery.md").write_text(gallery(), encoding="utf-8")


def output_of(shot: Shot, folder: Path, columns: int) -> str:
    """What a command prints, of an earlier run where there is one."""
    kept = folder / f"{shot.name}.ansi"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{shot.name}.html").unlink(missing_ok=True)  # of a run that was ended
        if shot.before:
            shot.before(folder)
        sys.stderr.write(f"{columns} columns: vramfit {' '.join(shot.command)}\n")
        kept.write_bytes(run_in_terminal(shot, folder, columns))
    return kept.read_bytes().decode()  # text would take each carriage return for the end of a line


def run_in_terminal(shot: Shot, folder: Path, columns: int) -> bytes:
    """What a command prints on a terminal, with all that it erases again."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "vramfit", *shot.command]
    with subprocess.Popen(command, cwd=folder, stdout=slave, stderr=slave, env=environment) as child:
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
    printed = b"".join(parts)
    if child.returncode != shot.code:
        raise SystemExit(f"`vramfit {' '.join(shot.command)}` ended with {child.returncode}:\n{printed.decode()}")
    return printed


def as_it_stands(printed: str) -> str:
    """What is left on the terminal at the end: rich erases lines of progress (2K), and goes up to them (1A) first."""
    lines: list[str] = []
    for line in re.sub(r"\x1b\[\?\d+[hl]", "", printed).replace("\r\n", "\n").split("\n"):
        lines = lines[: len(lines) - line.count("\x1b[1A")]
        lines.append(line.rsplit("\x1b[2K", 1)[-1].rsplit("\r", 1)[-1])
    return "\n".join(lines).rstrip()


def draw_terminal(shot: Shot, printed: str, columns: int, file: Path) -> None:
    """A terminal with a command and what it printed."""
    console = Console(record=True, width=columns, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    console.print(Text(f"$ vramfit {shlex.join(shot.command)}", "bold"))
    console.print(Text.from_ansi(as_it_stands(printed)))
    console.save_svg(str(file), title="vramfit")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("no Chromium is here; install one, or name it with CHROMIUM.")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def photograph_all(browser: Browser, file: Path) -> None:
    """A page at every width, light and dark: the top of it, which says most."""
    for width, (height, shown) in WIDTHS.items():
        for scheme in SCHEMES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(file.as_uri())
            whole = page.evaluate("document.documentElement.scrollHeight")
            page.set_viewport_size({"width": width, "height": min(height, whole)})
            with Image.open(io.BytesIO(page.screenshot())) as image:
                small = image.resize((shown, round(image.height * shown / image.width)), Image.Resampling.LANCZOS)
                small.save(PICTURES / "pages" / f"{file.stem}-{width}-{scheme}.webp", quality=40, method=6)
            page.close()


def gallery() -> str:
    """The page of all pictures."""
    return "\n".join([_HEAD, *(part for shot in SHOTS for part in _shown(shot))])


_HEAD = """# Gallery

Every verb in terminals of 80 and 120 columns and every page at 1280 and 390 pixels, light and dark, made from real
output by `python scripts/make_pictures.py --work FOLDER`. No GPU took part: all is predicted, or trained on a CPU for a
few minutes; the films are drawn ones, so errors say nothing of a real network. Of a long page the top is shown.
"""


def _shown(shot: Shot) -> Iterator[str]:
    yield f"## {shot.title}\n"
    yield f"`vramfit {shlex.join(shot.command)}`\n"
    for columns in COLUMNS:
        yield f"![{shot.title}, {columns} columns](pictures/terminal/{shot.name}-{columns}.svg)\n"
    for width in WIDTHS if shot.page else ():
        yield "| " + " | ".join(f"{width} pixels, {scheme}" for scheme in SCHEMES) + " |"
        yield "|---" * len(SCHEMES) + "|"
        files = (f"pictures/pages/{shot.name}-{width}-{scheme}.webp" for scheme in SCHEMES)
        yield "| " + " | ".join(f"![{shot.title}]({file})" for file in files) + " |\n"


if __name__ == "__main__":
    main()
