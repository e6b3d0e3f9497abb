"""The command line: verbs, exit codes, and the one place where errors are printed.

A verb's module imports nothing heavy at its top: all of them are loaded for `vramfit --help`.
"""

import os
import sys
import traceback
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated

import typer

from vramfit._version import __version__
from vramfit.allocator_environment import check_environment
from vramfit.cli.arguments import choose_card, normalise
from vramfit.cli.config import with_config
from vramfit.cli.failure import tell, tell_json
from vramfit.cli.panels import Verb
from vramfit.cli.tasks import LANDMARKS, TASKS, with_task_in_verb
from vramfit.cli.train import verb_of

# One module per verb, `vramfit.cli.<name>`, each with a function of that name; those with sub-commands have an `app`.
VERBS: tuple[str, ...] = (
    "demo",
    "doctor",
    "probe",
    "cards",
    "explain",
    "run",
    "check",
    "replay",
    "train",
    "evaluate",
    "infer",
    "export",
    "sample",
)
GROUPS: tuple[str, ...] = ("profile", "data")

INTERRUPTED = 130
# Words with which a command never loads torch.
_HARMLESS = {"-h", "--help", "--version"}

app = typer.Typer(
    name="vramfit",
    help="Training that fits the card: find the batch that fits, prove it, and train without running out of memory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vramfit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that come before any verb; `main` itself takes --debug out."""


def _complete(typer_app: typer.Typer) -> None:
    """Give every verb its panels, --config, and the first sentence of its help, which click would cut."""
    for command in typer_app.registered_commands:
        if command.callback is not None:
            command.cls = Verb
            command.callback = with_config(command.callback)
            command.short_help = (command.callback.__doc__ or "").strip().splitlines()[0]


for verb in VERBS:
    app.command(verb)(getattr(import_module(f"vramfit.cli.{verb}"), verb))
for kind in TASKS:
    if kind is not LANDMARKS:
        app.command(kind.verb, hidden=True)(verb_of(kind))
for group in GROUPS:
    group_app = import_module(f"vramfit.cli.{group}").app
    _complete(group_app)
    app.add_typer(group_app, name=group, short_help=str(group_app.info.help))
_complete(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; whatever goes wrong is one sentence on stderr."""
    words, debug = normalise(sys.argv[1:] if arguments is None else arguments)
    _replace_what_cannot_be_encoded()
    sys.exit(_run(words or ["--help"], debug=debug))


def _run(words: list[str], *, debug: bool) -> int:
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        if not _HARMLESS & set(words):
            words = choose_card(words, os.environ)
            check_environment(os.environ)
        outcome = app(with_task_in_verb(words), prog_name="vramfit", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as stop:
        # Typer makes this of a reader who has left.
        outcome = 0 if isinstance(stop.__context__, BrokenPipeError) else stop.code
    except BrokenPipeError:
        outcome = 0  # as of `| head`: the reader has what it wanted
    except (KeyboardInterrupt, typer.Abort):
        outcome = INTERRUPTED
        if as_json:
            tell_json("interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        outcome = tell(error, as_json=as_json)
    _forget_what_nobody_reads()
    code = outcome if isinstance(outcome, int) else 0
    if code == INTERRUPTED:
        typer.echo("vramfit: interrupted", err=True)
    return code


def _replace_what_cannot_be_encoded() -> None:
    """A console in cp1252 shows `?` for a letter it lacks; without this it would end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _forget_what_nobody_reads() -> None:
    """Where the reader of our output has left, keep Python from complaining when it closes stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
