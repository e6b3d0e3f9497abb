"""Programs that start a training script, in several processes as a rule: what they start, and how many."""

import contextlib
import io
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from vramfit.errors import UsageError
from vramfit.script.command import Command, file_command

_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "accelerate.commands.launch": "accelerate",
    "accelerate.commands.accelerate_cli": "accelerate",
}
_OTHERS = ("deepspeed", "mpirun", "mpiexec", "srun", "horovodrun", "colossalai", "composer", "ray")
# Of accelerate's launcher: what shares weights out among ranks, so that one holds less than all.
_SHARDING = ("use_fsdp", "use_deepspeed", "use_megatron_lm", "tpu")


def launched(words: Sequence[str]) -> Command | None:
    """The script that a launcher starts, as its first rank; None for words that begin with no launcher.

    Raises:
        UsageError: the launcher's options make no sense, or it is one whose ranks cannot be followed.

    """
    name, rest = _launcher(list(words))
    if name == "torchrun":
        return _torchrun(list(words), rest)
    if name == "accelerate":
        return _accelerate(list(words), rest)
    if name in _OTHERS:
        raise UsageError(
            f"{name} starts processes in its own way, which is not followed; give the script itself, as in "
            "`vramfit run -- python train.py`, or torchrun's form of the command."
        )
    return None


def _launcher(words: list[str]) -> tuple[str, list[str]]:
    """The launcher's name and what follows it."""
    name = Path(words[0]).name
    if re.match(r"python", name) and len(words) > 2 and words[1] == "-m" and words[2] in _MODULES:
        known = _MODULES[words[2]]
        rest = words[3:]
        return known, (rest[1:] if known == "accelerate" and rest[:1] == ["launch"] else rest)
    if name == "accelerate" and words[1:2] != ["launch"]:
        raise UsageError("of accelerate's commands `accelerate launch` alone trains; give that after --.")
    return name, words[2:] if name == "accelerate" else words[1:]


def _torchrun(words: list[str], rest: list[str]) -> Command:
    from torch.distributed.run import get_args_parser

    given = _parsed(get_args_parser(), [word for word in rest if word not in ("--use_env", "--use-env")], "torchrun")
    if given.no_python:
        raise UsageError("torchrun --no-python starts what is no Python program; give the program itself.")
    here = _count(given.nproc_per_node)
    return _command(words, given, here, int(str(given.nnodes).partition(":")[0]) * here, {})


def _accelerate(words: list[str], rest: list[str]) -> Command:
    try:
        from accelerate.commands.launch import launch_command_parser
    except ImportError as error:
        raise UsageError(f"accelerate is not installed beside this vramfit ({error}); install it there.") from None
    given = _parsed(launch_command_parser(), rest, "accelerate launch")
    shared = [name for name in _SHARDING if getattr(given, name, None)]
    if shared:
        raise UsageError(f"accelerate launch --{shared[0]} shares weights out, which is not predicted; leave it out.")
    environment = {"ACCELERATE_MIXED_PRECISION": given.mixed_precision or "no"}
    if given.gradient_accumulation_steps:
        environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] = str(given.gradient_accumulation_steps)
    size = int(given.num_processes or 1)
    return _command(words, given, max(1, size // int(given.num_machines or 1)), size, environment)


def _parsed(parser: ArgumentParser, words: list[str], name: str) -> Namespace:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(words)
    except SystemExit:
        line = (said.getvalue().strip().splitlines() or ["it names no script"])[-1]
        raise UsageError(f"{name} does not take these options ({line.partition('error: ')[2] or line}).") from None


def _count(text: object) -> int:
    """Processes of a node; of a machine whose cards are not known (`gpu`, `auto`) one."""
    return int(str(text)) if str(text).isdigit() else 1


def _command(words: list[str], given: Namespace, here: int, world_size: int, environment: dict[str, str]) -> Command:
    arguments = tuple(given.training_script_args)
    launcher = tuple(words[: len(words) - len(arguments) - 1])
    ranks = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(here),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }
    several = world_size > 1 or "accelerate" not in launcher[0]
    settings = {**environment, **(ranks if several else {})}
    made = (
        Command("module", given.training_script, arguments)
        if given.module
        else file_command(given.training_script, arguments)
    )
    return made.launched_by(launcher, tuple(settings.items()), world_size)
