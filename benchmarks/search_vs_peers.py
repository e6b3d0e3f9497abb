"""How searches for the batch size compare: pytorch-lightning's, accelerate's and ours, on one scripted card.

Every tool is run for real; only the card is made of arithmetic (tests/scripted_card.py), so that the truth is known.
A trial is one size run once. An answer crashes when a run with it would: training with optimizer state and averaged
weights, and validation, at the batch that the data set allows. Needs pytorch-lightning 2.6.6 and accelerate:

    python benchmarks/search_vs_peers.py [--out benchmarks/results]
"""
# ruff: noqa: D102  # Lightning's hooks and one-line properties say what they are by name

import argparse
import gc
import json
import logging
import os
import platform
import random
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pytorch_lightning as pl  # noqa: E402  # the scripted card must be found first
import torch  # noqa: E402
from accelerate.utils import find_executable_batch_size  # noqa: E402
from pytorch_lightning.tuner import Tuner  # noqa: E402
from scripted_card import ScriptedCard  # noqa: E402

from vramfit import NothingFits, find_batch_size  # noqa: E402
from vramfit.files import write_atomically  # noqa: E402
from vramfit.units import GIB, MIB  # noqa: E402

MOST_TRIALS = 300
LIMITS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 21, 28, 37, 48, 64, 80, 100, 128, 181, 256, 333, 512, 700, 1024, 1500)
LARGE_LIMITS = (2048, 3000, 4096)
NO_DATA_LIMIT = 65_536


class Endless(BaseException):
    """A search that does not end; not an Exception, so that no tool takes it for an OOM."""


@dataclass(frozen=True)
class Scenario:
    """One card and data set; `make` builds a fresh card, `error` is by how much the prediction is wrong."""

    name: str
    kind: str
    make: Callable[[], ScriptedCard]
    images: int = NO_DATA_LIMIT
    error: float = 0.0
    monotone: bool = True

    @property
    def optimum(self) -> int:
        return min(self.make().true_limit, self.images)

    @property
    def prediction(self) -> int:
        return max(1, round(self.make().true_limit * (1 + self.error)))

    def crashes(self, answer: int) -> bool:
        return not self.make().trains(min(answer, self.images))


@dataclass
class Outcome:
    """What one tool made of one scenario; `ending` is answered, nothing fits, error, or endless."""

    tool: str
    scenario: str
    kind: str
    monotone: bool
    optimum: int
    ending: str = "answered"
    answer: int | None = None
    trials: int = 0
    ooms: int = 0
    crashes: bool = False
    ran_answer: bool = True
    seconds: float = 0.0
    note: str = ""


@dataclass
class Bounded:
    """Training code on a scripted card that counts its runs and stops a search that does not end."""

    card: ScriptedCard
    images: int
    runs: list[int] = field(default_factory=list)

    def step(self, size: int) -> int:
        self.begin(size)
        return self.card.step(min(size, self.images))

    def begin(self, size: int) -> None:
        self.runs.append(size)
        if len(self.runs) > MOST_TRIALS:
            raise Endless


# -- the tools ----------------------------------------------------------------------------------------------------
def ours_with_peaks(run: Bounded, scenario: Scenario) -> int:
    budget, guess = run.card.room_bytes, scenario.prediction
    return find_batch_size(run.step, start=guess, maximum=scenario.images, budget_bytes=budget).batch_size


def ours_yes_no(run: Bounded, scenario: Scenario) -> int:
    return find_batch_size(run.step, start=scenario.prediction, maximum=scenario.images).batch_size


def ours_from_128(run: Bounded, scenario: Scenario) -> int:
    return find_batch_size(run.step, start=128, maximum=scenario.images).batch_size


def ours_without_start(run: Bounded, scenario: Scenario) -> int:
    return find_batch_size(run.step, maximum=scenario.images).batch_size


def accelerate_default(run: Bounded, scenario: Scenario) -> int:
    return _accelerate(run, min(128, scenario.images))


def accelerate_from_prediction(run: Bounded, scenario: Scenario) -> int:
    return _accelerate(run, min(scenario.prediction, scenario.images))


def _accelerate(run: Bounded, start: int) -> int:
    @find_executable_batch_size(starting_batch_size=start)
    def train(batch_size: int) -> int:
        run.step(batch_size)
        return batch_size

    return train()


def lightning_power(run: Bounded, scenario: Scenario) -> int:
    return _lightning(run, scenario, "power")


def lightning_binsearch(run: Bounded, scenario: Scenario) -> int:
    return _lightning(run, scenario, "binsearch")


def _lightning(run: Bounded, scenario: Scenario, mode: str) -> int:
    module = LightningJob(run, scenario.images)
    run.card.averaging = False
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[Averaging(run.card)],
        )
        found = Tuner(trainer).scale_batch_size(module, mode=mode)
    return int(found if found is not None else module.batch_size)


class Averaging(pl.Callback):
    """Averaged weights as Lightning has them: a callback, which its batch-size finder takes away."""

    def __init__(self, card: ScriptedCard) -> None:
        self.card = card

    def on_train_start(self, *_: object) -> None:
        self.card.averaging = True


class Numbers(torch.utils.data.Dataset[float]):
    """A data set that costs nothing."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> float:
        return 1.0


class LightningJob(pl.LightningModule):
    """A LightningModule whose steps take their memory from a scripted card."""

    def __init__(self, run: Bounded, images: int) -> None:
        super().__init__()
        self.run_under_test, self.images, self.batch_size = run, images, 2
        self.weight = torch.nn.Parameter(torch.ones(1))

    def on_train_start(self) -> None:
        self.run_under_test.begin(self.batch_size)
        self.run_under_test.card.steps = 0

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        self.run_under_test.card.take(len(batch))
        return self.weight.sum()

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.run_under_test.card.take(len(batch), training=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def train_dataloader(self) -> torch.utils.data.DataLoader[float]:
        return self._loader()

    def val_dataloader(self) -> torch.utils.data.DataLoader[float]:
        return self._loader()

    def _loader(self) -> torch.utils.data.DataLoader[float]:
        return torch.utils.data.DataLoader(
            Numbers(self.images), batch_size=self.batch_size, collate_fn=lambda samples: torch.ones(len(samples))
        )


TOOLS: dict[str, Callable[[Bounded, Scenario], int]] = {
    "vramfit, peak bytes and prediction": ours_with_peaks,
    "vramfit, yes/no and prediction": ours_yes_no,
    "vramfit, yes/no from 128": ours_from_128,
    "vramfit, yes/no alone": ours_without_start,
    "accelerate, from 128": accelerate_default,
    "accelerate, from the prediction": accelerate_from_prediction,
    "lightning power": lightning_power,
    "lightning binsearch": lightning_binsearch,
}


# -- the scenarios ------------------------------------------------------------------------------------------------
def scenarios() -> list[Scenario]:
    random_share = random.Random(4)
    made = [_plain(limit, random_share) for limit in (*LIMITS, *LARGE_LIMITS)]
    errors = random.Random(10)
    made += _small_data_sets() + _uneven() + _hidden_peaks() + _faces()
    return [replace(one, error=errors.uniform(-0.1, 0.1)) for one in made]


def _card(limit: int, share: float = 0.1, **changes: object) -> ScriptedCard:
    """A card of 8 GiB whose plain limit is `limit`, with `share` of its room taken by fixed memory."""
    card = ScriptedCard(**changes)  # type: ignore[arg-type]  # names of its own fields
    room = card.room_bytes - card.granularity_bytes
    fixed = int(room * share)
    per_image = int((room - fixed) / (limit + 0.4))
    return replace(card, fixed_bytes=fixed, per_image_bytes=per_image, sizes=[])


def _plain(limit: int, shares: random.Random) -> Scenario:
    share = shares.uniform(0.02, 0.45)
    return Scenario(f"limit {limit}", "plain", lambda: _card(limit, share))


def _small_data_sets() -> list[Scenario]:
    pairs = ((80, 100), (80, 50), (128, 50), (300, 64), (7, 5), (4096, 700), (700, 701), (24, 1))
    return [
        Scenario(f"limit {limit}, {images} images", "small data set", lambda limit=limit: _card(limit), images=images)
        for limit, images in pairs
    ]


def _uneven() -> list[Scenario]:
    bumps: dict[str, Callable[[int], int]] = {
        "a bump at 8 and 9": lambda n: 6 * GIB if n in (8, 9) else 0,
        "odd sizes cost more": lambda n: 2 * GIB * (n % 2),
        "every eighth is cheap": lambda n: 0 if n % 8 == 0 else GIB,
        "a cliff after 12": lambda n: 8 * GIB if n > 12 else 0,
        "a bump at 16": lambda n: 7 * GIB if n == 16 else 0,
    }
    monotone = {"a cliff after 12"}
    made = [
        Scenario(name, "uneven", lambda extra=extra: _card(24, extra=extra), monotone=name in monotone)
        for name, extra in bumps.items()
    ]
    coarse = [
        Scenario(f"64 MiB steps, limit {n}", "uneven", lambda n=n: _card(n, granularity_bytes=64 * MIB))
        for n in (9, 90)
    ]
    return made + coarse


def _hidden_peaks() -> list[Scenario]:
    made = []
    for limit in (6, 40, 200):
        made += [
            Scenario(f"averaged weights, {limit}", "EMA", lambda n=limit: _card(n, average_bytes=GIB)),
            Scenario(f"optimizer state, {limit}", "optimizer", lambda n=limit: _card(n, optimizer_bytes=2 * GIB)),
            Scenario(f"validation peaks, {limit}", "validation", lambda n=limit: _card(n, validation=1.6)),
        ]
    return made


def _faces() -> list[Scenario]:
    return [
        Scenario(f"{face}, limit {limit}", "face", lambda face=face, limit=limit: _card(limit, face=face))
        for face in ("runtime", "cublas", "cudnn internal", "cudnn not supported", "no engine")
        for limit in (6, 50)
    ]


# -- running them -------------------------------------------------------------------------------------------------
def run(tool: str, scenario: Scenario) -> Outcome:
    outcome = Outcome(tool, scenario.name, scenario.kind, scenario.monotone, scenario.optimum)
    bounded = Bounded(scenario.make(), scenario.images)
    begin = perf_counter()
    try:
        outcome.answer = TOOLS[tool](bounded, scenario)
    except NothingFits:
        outcome.ending = "nothing fits"
    except Endless:
        outcome.ending = "endless"
    except Exception as error:
        outcome.ending, outcome.note = "error", f"{type(error).__name__}: {str(error)[:120]}"
    outcome.seconds = round(perf_counter() - begin, 3)
    outcome.trials, outcome.ooms = len(bounded.runs), bounded.card.ooms
    if outcome.answer is not None:
        outcome.crashes = scenario.crashes(outcome.answer)
        outcome.ran_answer = outcome.answer in bounded.runs and outcome.answer <= scenario.images
    return outcome


def summarise(tool: str, outcomes: list[Outcome]) -> dict[str, float | int | str]:
    mine = [one for one in outcomes if one.tool == tool]
    monotone = [one for one in mine if one.monotone]
    answered = [one for one in monotone if one.answer]
    return {
        "tool": tool,
        "scenarios": len(mine),
        "trials_mean": round(statistics.mean(one.trials for one in mine), 2),
        "trials_most": max(one.trials for one in mine),
        "ooms_mean": round(statistics.mean(one.ooms for one in mine), 2),
        "ooms_most": max(one.ooms for one in mine),
        "optimum": sum(one.answer == one.optimum for one in monotone),
        "of_monotone": len(monotone),
        "share_of_optimum": round(statistics.mean(min(one.answer, one.optimum) / one.optimum for one in answered), 3),
        "crashes": sum(one.crashes for one in mine),
        "never_run": sum(not one.ran_answer for one in mine),
        "errors": sum(one.ending == "error" for one in mine),
        "endless": sum(one.ending == "endless" for one in mine),
    }


def table(rows: list[dict[str, float | int | str]]) -> str:
    head = (
        "| tool | trials, mean (most) | OOMs, mean (most) | optimum, monotone cases | share of the optimum, mean "
        "| answers that crash | answers never run | search died of an OOM | endless |"
    )
    line = "|---|---|---|---|---|---|---|---|---|"
    body = [
        "| {tool} | {trials_mean} ({trials_most}) | {ooms_mean} ({ooms_most}) | {optimum} of {of_monotone} "
        "| {share_of_optimum:.0%} | {crashes} | {never_run} | {errors} | {endless} |".format(**row)
        for row in rows
    ]
    return "\n".join([head, line, *body])


def report(outcomes: list[Outcome], rows: list[dict[str, float | int | str]], machine: dict[str, str]) -> str:
    count = len(outcomes) // len(TOOLS)
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    return f"""# Searches for the batch size on one scripted card

{count} scenarios; {about}. Made by `benchmarks/search_vs_peers.py`; every case is in search_vs_peers.json.

{table(rows)}

A trial is one size run once; a run of Lightning's finder is three steps of it. The prediction is wrong by up to 10 %
either way. "Crash": a run with the answer would run out of memory in training with optimizer state and averaged
weights, or in validation. "Never run": the answer itself was not tried, or is larger than the data set. "Endless":
more than {MOST_TRIALS} trials. Averaged weights are part of the step for vramfit and accelerate, and a callback in
Lightning, whose finder removes callbacks; its margin of 5 % in binsearch is left at its default.
"""


def machine() -> dict[str, str]:
    packages = ("vramfit-trainer", "pytorch-lightning", "accelerate", "torch")
    found = {name: _version(name) for name in packages}
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version(), **found}


def _version(package: str) -> str:
    if package != "vramfit-trainer":
        return version(package)
    from vramfit import __version__

    return __version__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    # Every tool collects garbage between trials; the libraries themselves are none.
    gc.freeze()
    made = scenarios()
    outcomes = [run(tool, scenario) for tool in TOOLS for scenario in made]
    rows = [summarise(tool, outcomes) for tool in TOOLS]
    about = machine()
    document = {"machine": about, "summary": rows, "cases": [asdict(one) for one in outcomes]}
    write_atomically(options.out / "search_vs_peers.json", json.dumps(document, indent=1) + "\n")
    text = report(outcomes, rows, about)
    write_atomically(options.out / "search_vs_peers.md", text)
    print(text)


if __name__ == "__main__":
    main()
