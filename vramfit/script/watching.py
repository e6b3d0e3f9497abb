"""A whole run of an unchanged script with the leak watch on: `python -m vramfit.script.watching COMMAND`.

The script runs for real, as it would by itself; what grows is told on stderr as it is found.
"""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vramfit.script.command import Command


@contextmanager
def leaks_watched() -> Iterator[None]:
    """Within it, every step of the optimizer that steps most often is watched for what grows."""
    import torch
    from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

    from vramfit.postmortem.leak_watch import CudaCard, LeakWatch

    watch = LeakWatch(lambda sentence: print(f"vramfit: {sentence}", file=sys.stderr, flush=True))  # noqa: T201
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


def watch_whole_run(command: Command) -> int:
    """Run a script to its end in a process of its own, watched; its exit code."""
    arguments = [sys.executable, "-m", "vramfit.script.watching", pickle.dumps(command).hex()]
    return subprocess.run(arguments, check=False).returncode


def main() -> None:
    """Run the command that the first argument holds, within the watch."""
    from vramfit.script.script_process import execute

    command = pickle.loads(bytes.fromhex(sys.argv[1]))
    with leaks_watched():
        execute(command)


if __name__ == "__main__":
    main()
