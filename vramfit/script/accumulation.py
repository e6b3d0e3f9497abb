"""A script's own option for accumulation steps: found in its command line or source by its usual names."""

import ast
import re
from collections.abc import Iterator

from vramfit.script.command import Command
from vramfit.script.declared_options import options_in, source_of

# Each without hyphens and underscores.
_NAMES = (
    "gradientaccumulationsteps",
    "gradaccumulationsteps",
    "gradaccumsteps",
    "accumulationsteps",
    "accumulategradbatches",
    "accumsteps",
    "accumiter",
    "gradaccumulation",
    "gradientaccumulation",
    "gradaccum",
    "updatefreq",
    "iterstoaccumulate",
    "accumulate",
    "accumulation",
    "accum",
)
# Parsers that take their options from a class of a library, and what it calls this one.
_FROM_CLASSES = {
    "TrainingArguments": "--gradient_accumulation_steps",
    "Seq2SeqTrainingArguments": "--gradient_accumulation_steps",
    "LightningCLI": "--trainer.accumulate_grad_batches",
}


def accumulation_option(command: Command) -> str | None:
    """The option of a command that sets its accumulation steps, as `Command.with_value` takes it; None if unseen."""
    found = [*_of_line(command), *_of_source(command)]
    return found[0] if found else None


def _of_line(command: Command) -> Iterator[str]:
    for word in command.arguments:
        name, equals, _ = word.partition("=")
        if _is_named(name):
            yield name if name.startswith("-") or not equals else f"{name}={{}}"


def _of_source(command: Command) -> Iterator[str]:
    """Options that the script's own file declares, the best known first; then those that a library's class gives it."""
    tree = source_of(command)
    if tree is None:
        return
    yield from sorted(filter(_is_named, options_in(tree)), key=lambda option: _NAMES.index(_plain(option)))
    parsed = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if parsed & {"HfArgumentParser", "LightningCLI"}:
        yield from (option for name, option in _FROM_CLASSES.items() if name in parsed)


def _is_named(option: str) -> bool:
    return _plain(option) in _NAMES


def _plain(option: str) -> str:
    """The last part of a dotted name, without hyphens and underscores."""
    return re.sub(r"[-_+]", "", option.rpartition(".")[2]).lower()
