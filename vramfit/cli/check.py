"""`vramfit check`: fail where training takes more memory than the lock file says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vramfit.cli.options import BATCH, AsJson, ChannelsLast, ImageSize, MixedPrecision, read_size
from vramfit.cli.results import print_json, require_free, tell, write_result
from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.lock.growth import Growth
    from vramfit.lock.lock_file import LockedJob, LockFile, Question

GREW = 9


def check(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="A script's command, after a lone --: python train.py ...", metavar="-- COMMAND..."),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's name, module:function or file.py:function; without it all that is locked.", metavar="NAME"
        ),
    ] = None,
    image_size: ImageSize = None,
    batch_size: Annotated[
        int | None, typer.Option(*BATCH, min=1, metavar="N", help="The micro-batch of --model.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="The card whose kernels are traced, which need not be here; RTX 3070 Ti if not given.", metavar="CARD"
        ),
    ] = None,
    amp: MixedPrecision = None,
    channels_last: ChannelsLast = False,
    name: Annotated[
        str | None,
        typer.Option(help="What the lock file calls it, if not model and batch, or command.", metavar="NAME"),
    ] = None,
    lock: Annotated[Path, typer.Option("--lock", help="The lock file.", metavar="FILE")] = Path("vramfit.lock"),
    tolerance: Annotated[str, typer.Option(help="By how much of itself a peak may grow.", metavar="X")] = "5%",
    update: Annotated[
        bool, typer.Option("--update", help="Accept what is taken now, and write the lock file.")
    ] = False,
    sarif: Annotated[
        Path | None, typer.Option("--sarif", help="Write what grew as a SARIF log to this file.", metavar="FILE")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --sarif overwrite a file.")] = False,
    annotate: Annotated[
        Literal["github"] | None, typer.Option(help="Also print what grew as annotations of a pull request.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Trace what training takes, and fail with exit code 9 where a peak grew beyond the lock file.

    Predicted, without a GPU; bytes of tensors, the same on every machine with the same PyTorch.
    """
    share = read_share(tolerance)
    require_free(sarif, force=force)
    from vramfit.cards import find_card
    from vramfit.lock.growth import growths
    from vramfit.lock.lock_file import LockFile, Question
    from vramfit.probe.backend import DEFAULT_CARD

    asked = Question(
        model=model,
        command=tuple(command or ()),
        gpu=find_card(gpu or DEFAULT_CARD).name,
        batch_size=batch_size,
        image_size=read_size(image_size),
        amp=amp,
        channels_last=channels_last,
    )
    _require_sense(asked, gpu)
    kept = LockFile() if update and asked.is_of_one and not lock.exists() else LockFile.read(lock)
    questions = _questions(kept, asked, name, update=update)
    now = {title: _answer(question) for title, question in questions.items()}
    grown = [
        growth
        for title, answer in now.items()
        if title in kept.jobs
        for growth in growths(title, kept.jobs[title], answer, share)
    ]
    written = [_accept(kept, now, lock)] if update else []
    if sarif is not None:
        from vramfit.lock.annotations import sarif as sarif_log

        written.append(write_result(sarif, sarif_log(grown, lock), "SARIF log"))
    _report(kept, now, grown, as_json=as_json)
    if annotate is not None:
        _annotate(grown, lock, as_json=as_json)
    tell(written, as_json=as_json)
    if grown and not update:
        raise typer.Exit(GREW)


def read_share(text: str) -> float:
    """A share such as `5%` or `0.05`.

    >>> read_share("5%"), read_share("0.05"), read_share("0")
    (0.05, 0.05, 0.0)

    Raises:
        UsageError: it is no share, or less than 0.

    """
    number, percent, rest = text.strip().replace(",", ".").partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 10 or rest:
        raise UsageError(f"--tolerance '{text}' is no share; write one such as 5% or 0.05.")
    return share


def _require_sense(asked: "Question", gpu: str | None) -> None:
    """Refuse a question that is none, or two, and options that say nothing to it."""
    of_a_step = asked.batch_size or asked.image_size or asked.amp or asked.channels_last
    if not asked.is_of_one and (of_a_step or gpu):
        raise UsageError(
            "--gpu, --batch-size and the like are of one --model or script; without it all is checked as it was locked."
        )
    if asked.command and asked.model is not None:
        raise UsageError("--model and a script's command are two questions; ask them one after the other.")
    if asked.command and of_a_step:
        raise UsageError("--batch-size and the like say nothing to a script; give them among its own arguments.")
    if asked.model is not None and asked.batch_size is None:
        raise UsageError(f"--batch-size is missing; a check of '{asked.model}' is of one batch.")


def _questions(kept: "LockFile", asked: "Question", name: str | None, *, update: bool) -> "dict[str, Question]":
    """What is to be traced, by its name in the lock file."""
    if not asked.is_of_one:
        named = {title: job.question for title, job in kept.jobs.items() if name in (None, title)}
        if not named:
            raise UsageError(f"nothing called '{name}' is locked; it has {', '.join(kept.jobs) or 'no jobs'}.")
        return named
    title = name or asked.name
    if not update and title not in kept.jobs:
        raise UsageError(f"'{title}' is not locked yet; accept it with --update, or give the --name that it has.")
    if not update and kept.jobs[title].question != asked:
        raise UsageError(
            f"'{title}' is locked with other options; check it as it is locked with `vramfit check --name '{title}'`, "
            "or accept these with --update."
        )
    return {title: asked}


def _answer(question: "Question") -> "LockedJob":
    from vramfit.lock.ask import locked, trace_of_job

    if question.command:
        from vramfit.script.command import parse_command
        from vramfit.script.run import watch_script

        outcome = watch_script(parse_command(list(question.command)), question.gpu, quiet=True)
        assert outcome.trace is not None  # else it had been said
        return locked(question, outcome.trace)
    from vramfit.cli.models import named_job

    assert question.model is not None
    assert question.batch_size is not None
    job = named_job(
        question.model, image_size=question.image_size, amp=question.amp, channels_last=question.channels_last
    )
    return locked(question, trace_of_job(job, question.gpu, question.batch_size))


def _accept(kept: "LockFile", now: "dict[str, LockedJob]", lock: Path) -> str:
    accepted = {title: answer.rolled_up() for title, answer in now.items()}
    kept.model_copy(update={"jobs": {**kept.jobs, **accepted}}).write(lock)
    return f"Lock file written to {lock}"


def _report(kept: "LockFile", now: "dict[str, LockedJob]", grown: "list[Growth]", *, as_json: bool) -> None:
    if as_json:
        jobs = {title: answer.rolled_up().model_dump(mode="json") for title, answer in now.items()}
        print_json({"passed": not grown, "grown": [one.model_dump(mode="json") for one in grown], "jobs": jobs})
        return
    from vramfit.report.lock import growth_sentences, lock_table, newer_versions
    from vramfit.report.terminal import show

    show(lock_table(kept.jobs, now))
    said = list(growth_sentences(grown)) or (["No peak grew."] if set(now) & set(kept.jobs) else [])
    typer.echo("\n".join(["", *said, *newer_versions(kept.jobs, now)]))


def _annotate(grown: "list[Growth]", lock: Path, *, as_json: bool) -> None:
    from vramfit.lock.annotations import workflow_command

    for growth in grown:
        typer.echo(workflow_command(growth, lock), err=as_json)
