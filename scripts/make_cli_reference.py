"""Write docs/cli.md, the reference of every verb and option, from the command line itself.

`--check` writes nothing and exits 1 when the page is stale; `--list` prints the verbs and options; `--freeze` also
writes tests/golden/cli.txt, the list that a test holds the command line to: do it when an option is meant to appear or
to vanish.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from vramfit.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "cli.md"
FROZEN = REPOSITORY / "tests" / "golden" / "cli.txt"

HEAD = """# Command line reference

Written by `python scripts/make_cli_reference.py`; do not edit. What the words mean: [words.md](words.md).
Underscores and hyphens are the same in option names: `--image_size` is `--image-size`. An image size is written `768`,
`512x640` or `512 640`, height first; `--device 0` is the first card, and the only one that the command sees.

**`--config FILE`**, which every verb has, takes options from YAML or TOML, by their names without hyphens before them;
what is typed beside it counts more. `vramfit train` writes its own into the run's folder: `vramfit train --config
checkpoints/run.yaml` repeats the run.

**`--json`**, which every verb has, prints one document. A command that fails prints `{"error": ..., "exit_code": ...}`.

**Completion:** `vramfit --install-completion`, for bash, zsh, fish and PowerShell.

Exit codes: 0 done, 1 unexpected, 2 usage, 3 nothing fits, 4 no usable GPU, 5 bad or stale profile,
6 out of memory beyond recovery, 7 bad data, 8 cannot write, 130 interrupted.
"""


def main() -> None:
    """Write or check the page, as the arguments say."""
    page = HEAD + "".join(section(path, command) for path, command in commands())
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page else f"{PAGE} is stale")
    if "--list" in sys.argv:
        sys.stdout.write("".join(f"{line}\n" for line in frozen_lines()))
        return
    PAGE.write_text(page, encoding="utf-8", newline="\n")
    if "--freeze" in sys.argv:
        FROZEN.write_text("".join(f"{line}\n" for line in frozen_lines()), encoding="utf-8", newline="\n")


def commands() -> Iterator[tuple[str, Any]]:
    """Every verb and sub-command in the order of the help, with the words that call it."""
    yield from _walk("vramfit", typer.main.get_command(app))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from _walk(f"{path} {name}", child)
        else:
            yield f"{path} {name}", child


def frozen_lines() -> list[str]:
    """One line for each verb's option or argument."""
    lines = [path for path, _ in commands()]
    lines += [f"{path} {_names(param)}" for path, command in commands() for param in _params(command)]
    return sorted(lines)


def section(path: str, command: Any) -> str:
    """The part of the page about one command."""
    rows = "".join(_row(param, _annotation(command, param)) for param in _params(command))
    table = f"\n| option | value | default | meaning |\n|---|---|---|---|\n{rows}" if rows else ""
    return f"\n## {path}\n\n{inspect.cleandoc(command.help or '')}\n{table}"


def _params(command: Any) -> list[Any]:
    return [param for param in command.params if param.name != "help"]


def _row(param: Any, annotation: Any) -> str:
    default = "" if param.default in (None, False, ()) or param.required else f"`{_words(param.default)}`"
    meaning = (getattr(param, "help", None) or "").replace("|", "\\|")
    return f"| `{_names(param)}` | {_value(param, annotation)} | {default} | {meaning} |\n"


def _names(param: Any) -> str:
    named = [*param.opts, *param.secondary_opts]
    return " / ".join(named) if param.param_type_name == "option" else (param.metavar or param.name.upper())


def _value(param: Any, annotation: Any) -> str:
    if getattr(param, "is_flag", False):
        return ""
    choices = _choices(annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    return param.metavar or {"int": "N", "float": "X"}.get(_type_name(annotation), "TEXT")


def _annotation(command: Any, param: Any) -> Any:
    signature = inspect.signature(command.callback)
    annotation = signature.parameters[param.name].annotation
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _type_name(annotation: Any) -> str:
    kinds = [part for part in (annotation, *get_args(annotation)) if part in (int, float)]
    return kinds[0].__name__ if kinds else "str"


def _words(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple | list) else str(default)


if __name__ == "__main__":
    main()
