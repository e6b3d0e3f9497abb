"""A script's command given to a verb where it does not belong: what to type in its place."""

import re
import shlex
from collections.abc import Sequence

# What a command begins with: Python, a launcher, or the script itself.
_BEGINS = re.compile(r"(.*[/\\])?(python[\d.]*|py|torchrun|accelerate|deepspeed|\S+\.py)(\.exe)?$")
_OF_COMMANDS = ("run", "check")
_APART = "a script's command stands after a lone --, apart from vramfit's own options"


def misplaced_command(verb: str, words: Sequence[str]) -> str | None:
    """The sentence for a verb whose words cannot be parsed; None where a command is no part of that.

    `words` are those after the verb.
    """
    if verb == "run" and not any(_begins(words, place, word) for place, word in enumerate(words)):
        return None if "--" in words else f"{_APART}, such as `vramfit run -- python train.py`."
    place = next((place for place, word in enumerate(words) if _begins(words, place, word)), None)
    if place is None or (verb in _OF_COMMANDS and "--" in words[:place]):
        return None
    command = _shortened([word for word in words[place:] if word != "--"])
    if verb not in _OF_COMMANDS:
        return f"{verb} takes no script's command; `vramfit run -- {command}` says what a script takes as it is."
    before = shlex.join(["vramfit", verb, *words[:place]])
    return f"{_APART}: `{before} -- {command}`."


def is_ambiguous(verb: str, words: Sequence[str]) -> bool:
    """Whether options that follow a command may be the script's or vramfit's own, as no lone -- is before it."""
    if verb not in _OF_COMMANDS or "--" in words:
        return False
    begins = next((place for place, word in enumerate(words) if _begins(words, place, word)), len(words))
    return any(word.startswith("-") for word in words[begins:])


def _begins(words: Sequence[str], place: int, word: str) -> bool:
    """Whether a command begins at a word, which is not an option's value such as that of `--model`."""
    before = words[place - 1] if place else ""
    return bool(_BEGINS.match(word)) and (before == "--" or not before.startswith("-"))


def _shortened(command: list[str]) -> str:
    """A command up to its script, and dots for its arguments."""
    script = next((place for place, word in enumerate(command) if word.endswith(".py")), len(command) - 1)
    return shlex.join(command[: script + 1]) + (" ..." if command[script + 1 :] else "")
