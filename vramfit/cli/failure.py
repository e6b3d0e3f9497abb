"""What an error becomes on the command line: one sentence on stderr, an exit code, and with --json a document."""

import errno
import json
import shutil
import sys

import typer

from vramfit.errors import CannotWrite, OutOfMemory, VramfitError

# Newer versions of Typer carry their own copy of click; its base class is reached through a name that all have.
_ParserError = typer.BadParameter.__mro__[2]
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_LONGEST = 300


def tell(error: Exception, *, as_json: bool = False) -> int:
    """Print what went wrong and what to do, in one sentence; return the exit code.

    With `as_json` stdout gets `{"error": ..., "exit_code": ...}` as well: who reads results there finds no empty file.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)  # type: ignore[attr-defined]  # click's: here a whole help text
        return int(error.exit_code)  # type: ignore[attr-defined]  # as above
    sentence, code = explain(error)
    _say(f"vramfit: {sentence}")
    if as_json:
        tell_json(sentence, code)
    return code


def _say(line: str) -> None:
    """On stderr, wrapped between words where that is a terminal."""
    if sys.stderr.isatty():
        from vramfit.report.terminal import wrapped

        line = wrapped(line, shutil.get_terminal_size().columns)
    typer.echo(line, err=True)


def tell_json(sentence: str, exit_code: int) -> None:
    """Print the document of a command that failed."""
    typer.echo(json.dumps({"error": sentence, "exit_code": exit_code}, indent=2))


def explain(error: Exception) -> tuple[str, int]:
    """What went wrong and what to do, in one sentence, and the exit code."""
    if isinstance(error, _ParserError):
        return _of_usage(error)
    known = _in_our_words(error)
    return (str(known), known.exit_code) if known else (_unexpected(error), 1)


def _in_our_words(error: Exception) -> VramfitError | None:
    if isinstance(error, VramfitError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        where = error.filename or "a file"
        return CannotWrite(f"{where} could not be written, no space is left; make room or name another folder.")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return CannotWrite(f"{error.filename or 'a file'} is on a read-only file system; name another folder.")
    if _is_out_of_memory(error):
        return OutOfMemory(f"out of memory ({_short(error)}); see what fits with `vramfit probe`.")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from vramfit.oom import is_out_of_memory

    return is_out_of_memory(error)


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__} ({_short(error)}); run it again with --debug to see where it comes from."


def _short(error: Exception) -> str:
    message = " ".join(str(error).split()) or "no message"
    return message if len(message) <= _LONGEST else message[:_LONGEST] + "..."


def _of_usage(error: Exception) -> tuple[str, int]:
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]  # click's ClickException
    # Pydantic's words, which newer versions of Typer pass on.
    message = message.replace("Value error, ", "").replace("Input should be", "it must be")
    context = getattr(error, "ctx", None)
    if context is not None:
        message = f"{message.rstrip('.')}; see `{context.command_path} --help`."
    return message, int(error.exit_code)  # type: ignore[attr-defined]  # as above
