"""A training run from its options: data, plan, step, loop, summary."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vramfit.errors import UsageError
from vramfit.jobs.levers.compile import compile_network
from vramfit.jobs.step import Step
from vramfit.landmarks.data.folds import Fold
from vramfit.landmarks.training.options import TrainOptions
from vramfit.landmarks.training.task import FilmTask, open_films
from vramfit.plan.workers import Feeding
from vramfit.training import checkpoint
from vramfit.training.batch_plan import Decision, choose_device, decide
from vramfit.training.distributed import Ranks
from vramfit.training.listeners import Listener, RunStart, RunSummary
from vramfit.training.loader_tuning import choose_feeding
from vramfit.training.loop import Loop
from vramfit.training.memory_limit import claim_card
from vramfit.training.profile_writer import ProfileKeeper
from vramfit.training.resume import Resumed, read_resumed
from vramfit.training.run_folders import PROFILE, log_folder, make_room, require_folders
from vramfit.training.run_options import LoopOptions
from vramfit.training.run_state import RunState


def train(options: TrainOptions, listeners: Sequence[Listener] = ()) -> RunSummary:
    """Train a landmark network, from a checkpoint where `options.resume` says so.

    Raises:
        UsageError, NoUsableGpu, NothingFits, ProfileError: before anything is trained.
        DataError: films, annotations or a checkpoint that cannot be used.
        NotFinite, OutOfMemory, CannotWrite: the run ended early; the last checkpoint is whole.
        KeyboardInterrupt: Ctrl-C, after a checkpoint.

    """
    if options.folds and not options.fold:
        raise UsageError(f"--folds {options.folds} are several runs; name the --fold of this one.")
    ranks = Ranks.join("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")
    try:
        return _train(options, listeners if ranks.is_first else (), ranks)
    finally:
        ranks.leave()


def _train(options: TrainOptions, listeners: Sequence[Listener], ranks: Ranks) -> RunSummary:
    began = time.monotonic()
    require_folders(options.save_dir, options.log_dir)
    resumed = read_resumed(options)
    if resumed is not None and resumed.is_over(options):
        return _finished_before(options, resumed, listeners)
    device = choose_device(options, ranks)
    task = _open_task(options, listeners, resumed)
    wanted = options.batch_size or (resumed.content["effective_batch"] if resumed else None)
    decision = decide(task.job, options, device, ranks, samples=len(task.training), effective=wanted)
    task = task.with_levers(decision.levers)
    now = datetime.now()
    listeners = [*listeners, *_keepers(options, decision, resumed)] if ranks.is_first else ()
    loop, notes = _Launch(options, ranks, device, resumed, now).loop(task, decision, listeners)
    start = _start(loop, options, decision, notes, log_folder(options.log_dir, task.name, now))
    for listener in listeners:
        listener.on_start(start)
    loop.run()
    return _end(loop, options, decision, listeners, time.monotonic() - began)


@dataclass(frozen=True)
class _Launch:
    """Everything that is known before the loop is made."""

    options: TrainOptions
    ranks: Ranks
    device: torch.device
    resumed: Resumed | None
    now: datetime

    def loop(self, task: FilmTask, decision: Decision, listeners: Sequence[Listener]) -> tuple[Loop, list[str]]:
        """The loop, ready to run, and the decisions made on the way, as sentences."""
        options, ranks = self.options, self.ranks
        planned = decision.profile.budget if decision.profile and options.gpu is None else None
        # The card is capped before anything is built on it.
        memory, claimed = claim_card(task.job, options, self.device, planned)
        step, built = _build_step(task, options, self.device, ranks, self.resumed)
        feeding = choose_feeding(task.training, options, decision, self.device, ranks)
        notes = [*task.notes, *_precision_note(options, self.device), *decision.notes, *claimed, *built]
        notes += [feeding.reason] if feeding.reason else []
        notes += self._make_room()
        loop = Loop(
            task, step, _loop_options(options, decision, feeding), ranks=ranks, listeners=listeners, memory=memory
        )
        if self.resumed is not None:
            loop.resume(self.resumed.content)
            notes.append(self.resumed.note(options, decision.effective_batch))
        return loop, notes

    def _make_room(self) -> list[str]:
        if not self.ranks.is_first:
            return []
        moved = make_room(self.options.save_dir, self.resumed.path if self.resumed else None, self.now)
        return [moved] if moved else []


def _keepers(options: TrainOptions, decision: Decision, resumed: Resumed | None) -> list[ProfileKeeper]:
    """Who keeps the run's profile, where it has one; a resumed run goes on with its events."""
    if decision.profile is None:
        return []
    state = RunState.of(resumed.content["position"]) if resumed else RunState()
    return [ProfileKeeper(state.written_into(decision.profile), options.save_dir / PROFILE)]


def _open_task(options: TrainOptions, listeners: Sequence[Listener], resumed: Resumed | None) -> FilmTask:
    def tell(split: str, done: int, total: int) -> None:
        for listener in listeners:
            listener.on_films(split, done, total)

    from vramfit.shipped import load_profile

    levers = load_profile(options.profile).plan.levers if options.profile else ()
    return open_films(
        options.dataset_path,
        lambda landmarks: options.landmark_options(landmarks, levers),
        film_format=options.film_format,
        annotator=options.annotator,
        skip_bad=options.skip_bad,
        augmentation=options.augmentation,
        cache_dir=options.cache_dir,
        seed=options.seed,
        landmarks=(resumed.landmarks if resumed else ()) or None,
        fold=Fold(options.fold, options.folds, options.seed) if options.fold and options.folds else None,
        on_films=tell,
    )


def _build_step(
    task: FilmTask, options: TrainOptions, device: torch.device, ranks: Ranks, resumed: Resumed | None
) -> tuple[Step, list[str]]:
    """The step with its first weights, the same on all ranks; random states are seeded before and after."""
    _seed(options.seed)
    step = Step(task.job, device)
    notes = []
    if resumed is not None:
        checkpoint.require_same_model(resumed.content, step.model, resumed.path)
    else:
        notes.append(task.start_weights(step.model))
    ranks.share_weights(step.model)
    if step.average is not None:
        step.average.model.load_state_dict(step.model.state_dict())
    if options.compile and step.model._compiled_call_impl is None:
        compile_network(step.model, 1.0)
    _seed(options.seed + ranks.rank)
    return step, notes


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _precision_note(options: TrainOptions, device: torch.device) -> list[str]:
    if device.type == "cpu" and options.amp == "fp16":
        return ["fp16 on a CPU runs as fp32."]
    return []


def _loop_options(options: TrainOptions, decision: Decision, feeding: Feeding) -> LoopOptions:
    return LoopOptions(
        epochs=options.epochs,
        effective_batch=decision.effective_batch,
        micro_batch=decision.micro_batch,
        save_dir=options.save_dir,
        warmup_epochs=options.warmup_epochs,
        patience=options.patience,
        difficulty=options.difficulty,
        seed=options.seed,
        num_workers=feeding.workers,
        batches_ahead=feeding.ahead,
        pin_memory=feeding.pin_memory,
        save_every=options.save_every,
        keep=options.keep,
        save_every_steps=options.save_every_steps,
        save_every_minutes=options.save_every_minutes,
        grow_back=options.grow_back,
        config=options.plain(),
    )


def _start(loop: Loop, options: TrainOptions, decision: Decision, notes: Sequence[str], log_dir: Path) -> RunStart:
    return RunStart(
        model=loop.task.job.model_name,
        device=_device_name(loop.step.device),
        samples=len(loop.task.training),
        validation_samples=len(loop.task.validation),
        epochs=options.epochs,
        first_epoch=loop.state.epoch + 1,
        steps_per_epoch=loop.steps_per_epoch,
        effective_batch=decision.effective_batch,
        micro_batch=loop.recovery.micro_batch,
        world_size=loop.ranks.world_size,
        save_dir=options.save_dir,
        log_dir=log_dir,
        notes=tuple(notes),
        settings=options.plain(),
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _end(
    loop: Loop, options: TrainOptions, decision: Decision, listeners: Sequence[Listener], duration_s: float
) -> RunSummary:
    state = loop.state
    best = next((record for record in state.history if record.epoch == state.best_epoch), None)
    summary = RunSummary(
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        best_mre_mm=best.mre_mm if best else None,
        best_loss=best.loss if best else None,
        duration_s=duration_s,
        save_dir=options.save_dir,
        profile=state.written_into(decision.profile) if decision.profile else None,
        micro_batch=decision.micro_batch,
        device_used_bytes=loop.memory.highest_bytes,
        step_time_s=loop.step_time_s,
        oom_events=tuple(state.oom_events),
        grow_backs=tuple(state.grow_backs),
        history=tuple(state.history),
    )
    for listener in listeners:
        listener.on_end(summary)
    return summary


def _finished_before(options: TrainOptions, resumed: Resumed, listeners: Sequence[Listener]) -> RunSummary:
    position = resumed.content["position"]
    best: dict[str, Any] = next(
        (record for record in position["history"] if record["epoch"] == position["best_epoch"]), {}
    )
    resumed.require_its_model(options)
    summary = RunSummary(
        epochs=resumed.epochs_done,
        best_epoch=position["best_epoch"],
        best_mre_mm=best.get("mre_mm"),
        best_loss=best.get("loss"),
        duration_s=0.0,
        save_dir=options.save_dir,
        finished_before=True,
    )
    for listener in listeners:
        listener.on_end(summary)
    return summary
