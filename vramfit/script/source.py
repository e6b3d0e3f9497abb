"""Where the answer on a script comes from: the card that is here, or one that need not be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from vramfit.cards import Card, find_card
from vramfit.errors import NothingFits, NotTraceable, NoUsableGpu, UnknownCard, UsageError
from vramfit.jobs.levers.text import describe_levers
from vramfit.measure.budget import read_budget
from vramfit.measure.device import Device
from vramfit.measure.memory import CardMemory, open_cuda_memory
from vramfit.prediction.predict import card_budget
from vramfit.probe.backend import DEFAULT_CARD, card_here
from vramfit.probe.request import ProbeRequest
from vramfit.records import Budget, Lever, Trial, Verdict
from vramfit.script.answer import ScriptAnswer
from vramfit.script.command import Command
from vramfit.script.measured_answer import ScriptMeasurer
from vramfit.script.outcome import OnCard, Outcome
from vramfit.script.predicted_answer import ScriptPredictor
from vramfit.script.run import TIMEOUT_S, watch_script
from vramfit.units import NO_LIMITS, MemoryLimits, format_size

OnTrial = Callable[[Trial], None]


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What is asked of a command.

    `gpu` is a card that need not be here, None for the one that is or else the default one; `option` is what is
    searched, None for the command as it stands; `timeout_s` of None is no limit.

    Raises:
        UsageError: a whole run of one rank of several, which would wait for the others.

    """

    command: Command
    limits: MemoryLimits = NO_LIMITS
    gpu: str | None = None
    steps: int = 3
    option: str | None = None
    timeout_s: float | None = TIMEOUT_S
    whole_run: bool = False

    def __post_init__(self) -> None:
        if self.whole_run and self.command.world_size > 1:
            raise UsageError(
                f"--whole-run is of one process, and the command starts {self.command.world_size}; leave out "
                "--whole-run, or let the launcher start one."
            )

    def watch(self, line: Command, card: str, on_card: OnCard | None = None) -> Outcome:
        """One run of the command, or of it with another value; of a search nothing is shown."""
        quiet = self.option is not None
        return watch_script(line, card, steps=self.steps, quiet=quiet, timeout_s=self.timeout_s, on_card=on_card)


def answer_with(request: RunRequest, choices: Sequence[tuple[Lever, ...]], on_trial: OnTrial) -> ScriptAnswer:
    """The command as it stands under the first of some sets of levers with which it fits; else under the last.

    Raises:
        UsageError: a whole run under several sets, which would train once for each.
        As `open_source`, and as what it opens.

    """
    if request.whole_run and len(choices) > 1:
        raise UsageError(
            "--whole-run trains once, and --levers auto may take several runs; leave out --whole-run, and give it with "
            "the list that is then printed."
        )
    said: list[str] = []
    for levers in choices:
        asked = replace(request, command=replace(request.command, levers=levers))
        answer = open_source(asked, on_trial).answer()
        (trial,) = answer.profile.trials
        if trial.verdict is Verdict.FITS:
            break
        said.append(f"With {describe_levers(levers)} it takes {format_size(trial.device_used_bytes)}: {trial.verdict}.")
    notes = (*answer.profile.notes, *(said[:-1] if len(said) == len(choices) else said))
    return answer.model_copy(update={"profile": answer.profile.model_copy(update={"notes": notes})})


def open_source(request: RunRequest, on_trial: OnTrial) -> ScriptPredictor | ScriptMeasurer:
    """Who answers a request; `on_trial` is told of each trial.

    Raises:
        NoUsableGpu: a whole run is asked for, and no card is here.
        UnknownCard: no such card.

    """
    device = card_here(ProbeRequest(gpu=request.gpu))
    if device is not None:
        return measuring(request, device, on_trial)
    if request.whole_run:
        raise NoUsableGpu("a whole run needs a card, and none is here; leave out --whole-run to predict.")
    card = find_card(request.gpu or DEFAULT_CARD)
    return _predicting(request, card, card_budget(card, request.limits), on_trial)


def measuring(
    request: RunRequest, device: Device, on_trial: OnTrial, open_memory: Callable[[], CardMemory] | None = None
) -> ScriptMeasurer:
    """Who measures on a card that is here; a search begins where prediction believes the answer to be.

    `open_memory` gives the card's memory in the script's process, by default that of CUDA.
    """
    budget = read_budget(device, request.limits)
    memory = open_memory or partial(open_cuda_memory, device.index)
    on_card = OnCard(budget, memory, whole_run=request.whole_run)
    return ScriptMeasurer(
        request.command,
        device,
        budget,
        lambda line: request.watch(line, device.name, on_card),
        option=request.option,
        guess=lambda highest: _guess(request, device, budget, highest),
        on_trial=on_trial,
    )


def _predicting(request: RunRequest, card: Card, budget: Budget, on_trial: OnTrial) -> ScriptPredictor:
    return ScriptPredictor(
        request.command,
        card,
        budget,
        lambda line: request.watch(line, card.name),
        option=request.option,
        on_trial=on_trial,
    )


def _guess(request: RunRequest, device: Device, budget: Budget, highest: int) -> int | None:
    """The largest value that is predicted to fit; None for a card or a script that cannot be predicted."""
    try:
        predictor = _predicting(request, find_card(device.name, total_bytes=device.total_bytes), budget, lambda _: None)
        return predictor.largest(highest).profile.plan.micro_batch
    except (UnknownCard, NotTraceable, NothingFits):
        return None
