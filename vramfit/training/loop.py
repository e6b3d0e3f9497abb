"""The loop over epochs and steps, for any task.

A task gives it samples, a job and a verdict. All that it carries from one step to the next
is in `RunState` and `Step.state_dict`, and goes into every checkpoint.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from vramfit._version import __version__
from vramfit.jobs.job import Batch
from vramfit.jobs.random_state import random_state, set_random_state
from vramfit.jobs.ranks import Ranks
from vramfit.jobs.step import Step
from vramfit.plan.workers import LoaderSettings
from vramfit.postmortem.leak_watch import CudaCard, LeakWatch
from vramfit.records import EpochRecord, GrowBack, OomEvent
from vramfit.training import checkpoint
from vramfit.training.batch_plan import Decision
from vramfit.training.listeners import Listener, Progress
from vramfit.training.loading import Loader, cut, epoch_order, share
from vramfit.training.loss_weights import loss_factors, running_errors
from vramfit.training.lr_schedule import WarmupCosine
from vramfit.training.monitors import Clock, LossWatch, MemoryWatch, StopSignal
from vramfit.training.oom_report import FirstOom
from vramfit.training.recovery import Recovery
from vramfit.training.regrowth import RegrowthPolicy
from vramfit.training.run_options import RunOptions
from vramfit.training.run_state import RunState
from vramfit.training.task import Judgement, Task
from vramfit.training.validation import validate


class Loop:
    """One run of a task on one device, alone or as one of several ranks."""

    def __init__(
        self,
        task: Task,
        step: Step,
        options: RunOptions,
        batch: Decision,
        *,
        loader: LoaderSettings | None = None,
        config: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
        listeners: Sequence[Listener] = (),
        memory: MemoryWatch | None = None,
    ) -> None:
        """A loop of this batch; `config` is what checkpoints keep of the options, if not all of them."""
        self.task, self.step, self.options, self.batch = task, step, options, batch
        self._config = dict(options.plain() if config is None else config)
        self.ranks = ranks or Ranks()
        self.listeners = listeners if self.ranks.is_first else ()
        self.state = RunState()
        explain = FirstOom(step, options.save_dir if self.ranks.is_first else None, self._note)
        self.recovery = Recovery(step, batch.micro_batch, ranks=self.ranks, on_event=self._on_event, on_failure=explain)
        self.memory = memory or MemoryWatch(step.device)
        self._growth = RegrowthPolicy(self.recovery, self.memory)
        self.step_times_s: list[float] = []
        loader = loader or LoaderSettings(0)
        pin = loader.pin_memory and step.device.type == "cuda"
        self._training = Loader(task.training, workers=loader.workers, ahead=loader.ahead, pin_memory=pin)
        # Validation samples are loaded here, in order: processes of their own would rarely earn their memory.
        self._validation = Loader(task.validation, pin_memory=pin)
        self._schedule = WarmupCosine.of(
            step.optimizer,
            warmup_steps=round(options.warmup_epochs * self.steps_per_epoch),
            total_steps=options.epochs * self.steps_per_epoch,
        )
        self._losses = LossWatch()
        card = CudaCard(step.device) if step.device.type == "cuda" else None
        self._leaks = LeakWatch(self._note, card)
        self._steps_done = 0
        self._began = self._saved = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return len(cut(range(len(self.task.training)), self.batch.effective_batch))

    def resume(self, content: checkpoint.Content) -> None:
        """Take up where a checkpoint left off; call it before `run`."""
        self.step.load_state_dict(content)
        self.state = RunState.of(content["position"])
        self._losses = LossWatch(self.state.loss_total, self.state.loss_samples)
        states = content["random"]
        # A rank that the checkpoint does not know, of a run on fewer cards, keeps its own fresh state.
        if self.ranks.rank < len(states):
            set_random_state(states[self.ranks.rank], self.step.device)
        planned = self.recovery.micro_batch
        self.recovery.micro_batch = min(planned, content["micro_batch"])
        self.recovery.validation_batch = min(self.recovery.validation_batch, content["validation_batch"])
        if "growth" in content:  # not in a checkpoint of an earlier version
            self._growth.load(content["growth"], planned)

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is behind, or patience is."""
        return self.state.is_over(self.options.epochs, self.options.patience)

    def run(self) -> None:
        """Train to the last epoch, or until patience is at an end.

        Raises:
            KeyboardInterrupt: Ctrl-C, after a checkpoint.
            NotFinite: the loss is NaN or infinite; the last checkpoint is from before.
            OutOfMemory: a single sample does not fit.
            CannotWrite: a checkpoint could not be written.

        """
        self._began = self._saved = time.monotonic()
        if not self.is_over:
            self._save(checkpoint.LATEST)  # so that a kill at any time leaves something to resume
        with StopSignal(lambda: self._tell(lambda listener: listener.on_stop_asked())) as stop:
            while not self.is_over:
                self._epoch(stop)

    def _epoch(self, stop: StopSignal) -> None:
        self.memory.begin_epoch()
        self.recovery.position = (self.state.epoch + 1, self.steps_per_epoch - len(self._steps_left()))
        self._losses = LossWatch(self.state.loss_total, self.state.loss_samples)
        clock = Clock(self.step.device)
        rate = self._train(clock, stop)
        self._losses.settle()
        trained_s = clock.elapsed_s
        judgement, loss = self._validate()
        mine = [event for event in self.state.ooms_of(self.state.epoch + 1) if event.phase == "validation"]
        for event in chain.from_iterable(self.ranks.others(mine)):
            self._on_event(event)
        if clock.steps:
            self.step_times_s.append((trained_s - clock.waited_s) / clock.steps)
        record = self._record(clock, trained_s, rate, judgement)
        self._close_epoch(record, judgement.cost(loss))

    def _record(self, clock: Clock, trained_s: float, rate: float, judgement: Judgement) -> EpochRecord:
        """The epoch's figures; `trained_s` is its time without validation."""
        return EpochRecord(
            epoch=self.state.epoch + 1,
            loss=self._losses.mean,
            learning_rate=rate,
            metrics=dict(judgement.metrics),
            micro_batch=self.recovery.micro_batch,
            images_per_s=clock.images / trained_s,
            data_wait_share=min(1.0, clock.waited_s / trained_s),
            duration_s=clock.elapsed_s,
            oom_events=self.state.ooms_of(self.state.epoch + 1),
            **self.memory.figures(),
        )

    def _train(self, clock: Clock, stop: StopSignal) -> float:
        """The rest of the epoch; returns the last learning rate."""
        cuts = self._steps_left()
        mine = [share(samples, self.ranks.rank, self.ranks.world_size) for samples in cuts]
        rate = max(float(group["lr"]) for group in self.step.optimizer.param_groups)
        batches = clock.batches(self._training.batches(self.state.epoch, mine))
        first = self.steps_per_epoch - len(cuts)
        for number, (samples, batch) in enumerate(zip(cuts, batches, strict=True), first):
            rate = self._take_step(number, batch, len(samples))
            clock.images += len(samples)
            clock.steps += 1
            self._after_step(clock, stop, rate)
        return rate

    def _steps_left(self) -> list[tuple[int, ...]]:
        """The samples of each step that the epoch still has."""
        order = epoch_order(len(self.task.training), seed=self.options.seed, epoch=self.state.epoch)
        return cut(order[self.state.done :], self.batch.effective_batch)

    def _take_step(self, number: int, batch: Batch | None, samples: int) -> float:
        """Step `number` of the epoch, from 0, on this rank's share of so many samples; its learning rate."""
        rate = self._schedule.apply(self.step.optimizer, self.state.epoch * self.steps_per_epoch + number)
        self.recovery.position = (self.state.epoch + 1, number + 1)
        loss = self.recovery.train(self._weighted(batch), samples)
        self._losses.add(loss, samples, self.recovery.position)
        self.state.done += samples
        return float(rate)

    def _weighted(self, batch: Batch | None) -> Batch | None:
        factors = loss_factors(self.state.running_errors, self.options.difficulty)
        return batch if batch is None or not factors else self.task.weighted(batch, factors)

    def _after_step(self, clock: Clock, stop: StopSignal, rate: float) -> None:
        self._steps_done += 1
        epoch, number = self.recovery.position
        total = self.options.epochs * self.steps_per_epoch
        left = total - (epoch - 1) * self.steps_per_epoch - number
        progress = Progress(
            epoch=epoch,
            step=number,
            steps=self.steps_per_epoch,
            loss=self._losses.last,
            learning_rate=rate,
            images_per_s=clock.images / clock.elapsed_s,
            left_s=(time.monotonic() - self._began) / self._steps_done * left,
        )
        self._tell(lambda listener: listener.on_progress(progress))
        self._leaks.after_step()
        if self.ranks.any(stop.asked):
            self._save(checkpoint.LATEST)
            saved = self.options.save_dir / checkpoint.LATEST
            note = f"Interrupted in epoch {epoch}, step {number}: {saved} is saved; go on with --resume."
            self._note(note)
            raise KeyboardInterrupt
        if self.ranks.any(self._save_is_due(number)):
            self._save(checkpoint.LATEST)

    def _save_is_due(self, number: int) -> bool:
        steps, minutes = self.options.save_every_steps, self.options.save_every_minutes
        by_steps = steps is not None and number % steps == 0
        return by_steps or (minutes > 0 and time.monotonic() - self._saved > 60 * minutes)

    def _validate(self) -> tuple[Judgement, float]:
        """The verdict over all ranks' samples, and their mean loss."""
        wanted = max((listener.examples for listener in self.listeners), default=0)
        found = validate(self.task, self._validation, self.recovery, self.ranks, examples=wanted)
        if wanted:
            self._tell(lambda listener: listener.on_examples(self.state.epoch + 1, found.examples[: listener.examples]))
        if self.options.difficulty:
            self.state.running_errors = running_errors(self.state.running_errors, found.rows)
        return self.task.judge(found.rows), found.loss

    def _close_epoch(self, record: EpochRecord, value: float) -> None:
        state, options = self.state, self.options
        is_best = state.best_value is None or value < state.best_value
        if is_best:
            state.best_epoch, state.best_value = record.epoch, value
        state.history.append(record)
        state.epoch, state.done, state.loss_total, state.loss_samples = record.epoch, 0, 0.0, 0
        growth = self._grow_back(record) if options.grow_back and record.epoch < options.epochs else None
        periodic = record.epoch % options.save_every == 0 or self.is_over
        names = [checkpoint.BEST] if is_best else []
        names += [checkpoint.epoch_file(options.save_dir, record.epoch).name] if periodic else []
        # The latest goes last: a run killed in between repeats the epoch and writes the same files again.
        self._save(*names, checkpoint.LATEST)
        if self.ranks.is_first:
            checkpoint.remove_oldest(options.save_dir, options.keep)
        self._tell(lambda listener: listener.on_epoch(record))
        warning = self.memory.warning()
        if warning:
            self._note(warning)
        if growth is not None:
            self._tell(lambda listener: listener.on_grow_back(growth))
        if self.is_over and record.epoch < options.epochs:
            self._note(f"Stopped after epoch {record.epoch}: no epoch was better than {state.best_epoch}.")

    def _grow_back(self, record: EpochRecord) -> GrowBack | None:
        """Larger micro-batches for the epochs to come, where it is time; the checkpoint that follows knows of it."""
        growth = self._growth.after_epoch(record.epoch, calm=not record.oom_events)
        if growth is not None:
            self.state.grow_backs.append(growth)
        return growth

    def _save(self, *names: str) -> None:
        """Write a checkpoint under each name; every rank must call it."""
        if self.state.done:
            self._losses.settle()
            self.state.loss_total, self.state.loss_samples = self._losses.total, self._losses.samples
        random = self.ranks.gather(random_state(self.step.device))
        if self.ranks.is_first:
            paths = [self.options.save_dir / name for name in names]
            checkpoint.save({**self._content(), "random": random}, *paths)
        self._saved = time.monotonic()

    def _content(self) -> checkpoint.Content:
        steps = self.state.epoch * self.steps_per_epoch
        return {
            **self.step.state_dict(),
            "vramfit_version": __version__,
            "schedule": self._schedule.state_dict(steps + -(-self.state.done // self.batch.effective_batch)),
            "position": self.state.plain(),
            "micro_batch": self.recovery.micro_batch,
            "validation_batch": self.recovery.validation_batch,
            "growth": self._growth.plain(),
            "effective_batch": self.batch.effective_batch,
            "config": self._config,
            "task": self.task.describe(self.step.job),
        }

    def _on_event(self, event: OomEvent) -> None:
        self.state.oom_events.append(event)
        self._tell(lambda listener: listener.on_event(event))

    def _note(self, text: str) -> None:
        self._tell(lambda listener: listener.on_note(text))

    def _tell(self, what: Callable[[Listener], None]) -> None:
        for listener in self.listeners:
            what(listener)

    @property
    def step_time_s(self) -> float | None:
        """Median over epochs of the seconds an optimizer step took, data loading left out."""
        return median(self.step_times_s) if self.step_times_s else None
