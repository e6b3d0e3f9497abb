"""The command that people train with: which Python program it runs, and with which arguments."""

import itertools
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.records import Lever

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?(\.exe)?$|py(\.exe)?$")
# Options of Python itself, which change nothing of what a script takes; those in the second row have a value.
_FLAGS = re.compile(r"-[bBdEiIOPqRsSuvx]+$")
_WITH_VALUE = ("-W", "-X")
_SETTING = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Command:
    """A Python program: a file or a module, and its arguments.

    `launcher` are the words before it where another program starts it, in `world_size` processes; `environment` are
    settings of its own, by name, and `settings` the words that gave them. `levers` are applied from outside as it runs.
    """

    kind: Literal["file", "module"]
    target: str
    arguments: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    world_size: int = 1
    settings: tuple[str, ...] = ()
    levers: tuple["Lever", ...] = ()

    @property
    def name(self) -> str:
        """What the program is called in a table."""
        return Path(self.target).name if self.kind == "file" else self.target

    def words(self) -> list[str]:
        """The command line."""
        if self.launcher:
            return [*self.settings, *self.launcher, self.target, *self.arguments]
        return [*self.settings, "python", *(("-m",) if self.kind == "module" else ()), self.target, *self.arguments]

    def launched_by(
        self, launcher: tuple[str, ...], environment: tuple[tuple[str, str], ...], world_size: int
    ) -> "Command":
        """The same program as the first of the processes that a launcher starts."""
        return replace(self, launcher=launcher, environment=environment, world_size=world_size)

    def with_value(self, option: str, value: int) -> "Command":
        """The same command with another value of one argument.

        `option` is the name of an option (`batch-size`, `--batch_size`, `-b`), or any argument with `{}` in place of
        its value (`data.batch={}`). It need not be on the command line already.
        """
        if "{}" in option:
            return replace(self, arguments=_with_pattern(self.arguments, option, value))
        name = option.lstrip("-")
        dashes = option[: len(option) - len(name)]
        return replace(self, arguments=_with_option(self.arguments, name, dashes, value))


def parse_command(words: Sequence[str]) -> Command:
    """The command of some words, such as `python train.py --epochs 3`.

    Raises:
        UsageError: there are none, it is no Python program, or a launcher that is not followed starts it.

    """
    settings = tuple(itertools.takewhile(_SETTING.match, words))
    command = _program(words[len(settings) :])
    named = tuple((name, value) for name, _, value in (word.partition("=") for word in settings))
    return replace(command, settings=settings, environment=(*command.environment, *named))


def _program(words: Sequence[str]) -> Command:
    if not words:
        raise UsageError("no command is given; write it after --, such as `vramfit run -- python train.py`.")
    first, rest = words[0], list(words[1:])
    from vramfit.script.launchers import launched

    if (command := launched(words)) is not None:
        return command
    if _PYTHON.match(Path(first).name):
        _require_this_python(first)
        return _of_python(rest)
    if Path(first).is_file() and (first.endswith(".py") or _is_python_script(Path(first))):
        return Command("file", first, tuple(rest))
    found = shutil.which(first) or shutil.which(first, path=str(Path(sys.executable).parent))
    if found is not None and _is_python_script(Path(found)):
        return Command("file", found, tuple(rest))
    raise UsageError(f"'{first}' is neither Python nor a Python program; write `python SCRIPT` or `python -m MODULE`.")


def _require_this_python(word: str) -> None:
    if Path(word).name == word or not Path(word).exists():
        return
    if Path(word).absolute().parent != Path(sys.executable).absolute().parent:
        raise UsageError(f"{word} is another Python than the one of this vramfit, {sys.executable}; install it there.")


def _of_python(words: list[str]) -> Command:
    while words and (_FLAGS.match(words[0]) or words[0].startswith(_WITH_VALUE)):
        with_value = words[0] in _WITH_VALUE
        words = words[2 if with_value else 1 :]
    if len(words) > 1 and words[0] == "-m":
        return Command("module", words[1], tuple(words[2:]))
    if not words or words[0].startswith("-"):
        raise UsageError("the command names no script; write `python SCRIPT` or `python -m MODULE` after --.")
    return file_command(words[0], tuple(words[1:]))


def file_command(name: str, arguments: tuple[str, ...]) -> Command:
    """A script in a file.

    Raises:
        UsageError: there is no such file.

    """
    if not Path(name).is_file():
        raise UsageError(f"there is no file {name} here; name the training script.")
    return Command("file", name, arguments)


def _is_python_script(file: Path) -> bool:
    with file.open("rb") as opened:
        return b"python" in opened.readline(200) and file.read_bytes()[:2] == b"#!"


def _with_pattern(arguments: tuple[str, ...], pattern: str, value: int) -> tuple[str, ...]:
    before, after = pattern.split("{}", 1)
    new = f"{before}{value}{after}"
    places = [n for n, word in enumerate(arguments) if word.startswith(before) and word.endswith(after)]
    if not places:
        return (*arguments, new)
    return tuple(new if n == places[-1] else word for n, word in enumerate(arguments))


def _with_option(arguments: tuple[str, ...], name: str, dashes: str, value: int) -> tuple[str, ...]:
    """The last place counts, as argparse has it; hyphens and underscores are one."""
    wanted = _plain(name)
    for place in reversed(range(len(arguments))):
        word, equals, _ = arguments[place].partition("=")
        if not word.startswith("-") or _plain(word.lstrip("-")) != wanted:
            continue
        if equals:
            return (*arguments[:place], f"{word}={value}", *arguments[place + 1 :])
        return (*arguments[: place + 1], str(value), *arguments[place + 2 :])
    return (*arguments, dashes + name if dashes else _spelled(arguments, name), str(value))


def _plain(name: str) -> str:
    return name.replace("_", "-").lower()


def _spelled(arguments: tuple[str, ...], name: str) -> str:
    """An option that is not on the line: with the script's own dashes, as far as its other options show them."""
    if len(name) == 1:
        return f"-{name}"
    options = [word for word in arguments if word.startswith("--")]
    underscores = any("_" in word for word in options) and not any("-" in word[2:] for word in options)
    return "--" + (name.replace("-", "_") if underscores else name)
