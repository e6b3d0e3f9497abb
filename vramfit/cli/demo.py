"""`vramfit demo`: the whole main job on made-up films, as the commands that a person would type."""

import sys
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from vramfit.cli.options import AsJson, OutputOption, one_path
from vramfit.cli.results import next_step, print_json, without_next_steps
from vramfit.errors import CannotWrite, VramfitError
from vramfit.units import format_duration

MODEL = "hrnet_w18_small_v2"
FILMS = 40
TRAINING_FILMS = 28  # of 40, split 70/15/15


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where everything goes; by default vramfit-demo, or the next free name.", metavar="FOLDER"),
    ] = None,
    *,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.", metavar="N")] = 8,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the whole job in minutes, with or without a GPU: films, probe, profile, training, evaluation.

    Every step is an ordinary vramfit command, printed before it runs.
    """
    folder = _new_folder(one_path(folder, output, "--output") if folder or output else None)
    started = time.monotonic()
    steps = _steps(folder, epochs)
    # A document is all that stdout gets, so what the steps say goes to stderr.
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), without_next_steps():
        for number, (title, words) in enumerate(steps, start=1):
            typer.echo(f"\n[{number}/{len(steps)}] {title}\n$ vramfit {' '.join(words)}\n")
            _run(words)
    duration_s = time.monotonic() - started
    if as_json:
        places = [{"path": place, "meaning": meaning} for place, meaning in _places(folder)]
        print_json(
            {"folder": folder, "duration_s": duration_s, "steps": [words for _, words in steps], "files": places}
        )
        return
    typer.echo(f"\nDone in {format_duration(duration_s)}. Everything lies in {folder}:")
    for place, meaning in _places(folder):
        typer.echo(f"  {place!s:<{_widest(folder)}}  {meaning}")
    next_step(
        f"open {folder / 'evaluation.html'}, then vramfit data check FOLDER on films of your own", as_json=as_json
    )


def _steps(folder: Path, epochs: int) -> list[tuple[str, list[str]]]:
    """What is done, each as a sentence and the command that does it."""
    films, profile = str(folder / "films"), str(folder / "profile.json")
    job = ["--model", MODEL, "--image-size", "128"]
    run = ["--images", str(TRAINING_FILMS), "--epochs", str(epochs)]
    weights = str(folder / "checkpoints" / "checkpoint_best.pth")
    return [
        (
            "Draw a small film set in 'Aariz layout: 29 landmarks, two raters, three machines.",
            ["sample", films, "--films", str(FILMS), "--height", "320"],
        ),
        (
            "Probe the job that is trained below: measured where there is a GPU, else predicted.",
            ["probe", *job, "--batch-sizes", "4,2,1", *run, "--export", profile],
        ),
        (
            "The same question for HRNet-W32 at 768x768 on an 8 GB RTX 3070 Ti, which need not be here.",
            ["probe", "--gpu", "rtx3070ti", "--vram", "8GB", "--export", str(folder / "rtx3070ti-768.json")],
        ),
        (
            "Train with the plan of the first probe.",
            [
                *("train", "--dataset-path", films, *job, "--profile", profile, "--weights", "none"),
                *("--epochs", str(epochs), "--warmup-epochs", "1", "--lr", "2e-3", "--num-workers", "0"),
                *("--save-dir", str(folder / "checkpoints"), "--log-dir", str(folder / "logs")),
            ],
        ),
        (
            "Evaluate the best weights on films that training never saw.",
            [
                *("evaluate", "--checkpoint", weights, "--dataset-path", films),
                *("--export", str(folder / "evaluation.json"), "--html", str(folder / "evaluation.html")),
            ],
        ),
    ]


def _run(words: list[str]) -> None:
    """One command in this process; a failure ends the demonstration with that command's error."""
    from vramfit.cli.main import app

    code = app(words, prog_name="vramfit", standalone_mode=False)
    if isinstance(code, int) and code:
        raise VramfitError(f"`vramfit {words[0]}` ended with code {code}; see what it printed above.")


def _new_folder(folder: Path | None) -> Path:
    if folder is None:
        names = (Path("vramfit-demo" + (f"-{number}" if number > 1 else "")) for number in range(1, 1000))
        return next(name for name in names if not name.exists())
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotWrite(f"{folder} is not empty; name another folder, or leave it out for the next free name.")
    return folder


def _places(folder: Path) -> list[tuple[Path, str]]:
    return [
        (folder / "films", "the film set"),
        (folder / "profile.json", "the profile: plan, trials and machine of the job that was trained"),
        (folder / "rtx3070ti-768.json", "the profile of the 768x768 job on the RTX 3070 Ti, predicted"),
        (folder / "checkpoints", "the weights: checkpoint_best.pth, checkpoint_latest.pth, checkpoint_epoch_*.pth"),
        (folder / "logs", f"curves: tensorboard --logdir {folder / 'logs'}"),
        (folder / "evaluation.json", "the evaluation, every figure"),
        (folder / "evaluation.html", "the same as a page, with plots and the worst films"),
    ]


def _widest(folder: Path) -> int:
    return max(len(str(place)) for place, _ in _places(folder))
