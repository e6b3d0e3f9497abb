"""The command line: verbs, exit codes, and the one place where errors are printed."""

import sys
import traceback
from importlib import import_module
from typing import Annotated

import typer

from vramfit import __version__
from vramfit.errors import VramfitError

# One module per verb, `vramfit.cli.<name>`, each with a function of that name; those with sub-commands have an `app`.
VERBS: tuple[str, ...] = ()
GROUPS: tuple[str, ...] = ()

app = typer.Typer(
    name="vramfit",
    help="Training that fits the card: find the batch that fits, prove it, and train without running out of memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vramfit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Options that come before any verb; `main` reads --debug itself."""


for verb in VERBS:
    app.command(verb)(getattr(import_module(f"vramfit.cli.{verb}"), verb))
for group in GROUPS:
    app.add_typer(import_module(f"vramfit.cli.{group}").app, name=group)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; a vramfit error is one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    try:
        app(arguments, standalone_mode=True)
    except VramfitError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        typer.echo(f"vramfit: {error}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        typer.echo("vramfit: interrupted", err=True)
        return 130
    return 0
