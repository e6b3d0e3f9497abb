"""A whole run of an unchanged script with the leak watch on: `python -m vramfit.script.watching COMMAND`.

The script runs for real, as it would by itself; what grows is told on stderr as it is found.
"""

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vramfit.errors import UsageError
from vramfit.script.command import Command
from vramfit.script.process_group import script_group


@contextmanager
def leaks_watched() -> Iterator[None]:
    """Within it, every step of the optimizer that steps first is watched for what grows; the end says if nothing is."""
    import torch
    from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

    from vramfit.postmortem.leak_watch import CudaCard, LeakWatch

    def tell(sentence: str) -> None:
        print(f"vramfit: {sentence}", file=sys.stderr, flush=True)  # noqa: T201

    watch = LeakWatch(tell)
    first: list[Optimizer] = []

    def after_step(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        first[:] = first or [optimizer]
        if torch.cuda.is_initialized() and not watch.has_card:
            watch.watch_card(CudaCard(torch.cuda.current_device()))
        if optimizer is first[0]:
            watch.after_step()

    handle = register_optimizer_step_post_hook(after_step)
    try:
        yield
    finally:
        handle.remove()
        if (said := watch.closing_words()) is not None:
            tell(said)


def watch_whole_run(command: Command) -> int:
    """Run a script to its end in a process of its own, watched; its exit code.

    Ctrl-C is the script's to handle, and it is waited for; a second one ends it at once.

    Raises:
        UsageError: a launcher would start several processes.

    """
    if command.world_size > 1:
        raise UsageError(
            f"--watch is of one process, and the command starts {command.world_size}; let the launcher start one, or "
            "give the script itself."
        )
    words = [sys.executable, "-m", "vramfit.script.watching", pickle.dumps(command).hex()]
    with script_group(words, for_real=True, env={**os.environ, **dict(command.environment)}) as process:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def main() -> None:
    """Run the command that the first argument holds, within the watch."""
    from vramfit.script.script_process import execute

    command = pickle.loads(bytes.fromhex(sys.argv[1]))
    with leaks_watched():
        execute(command)


if __name__ == "__main__":
    main()
