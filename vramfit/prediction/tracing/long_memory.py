"""LBFGS as it is after many steps: with the whole of its history, which fills as it iterates."""

import torch

_ITERATIONS = 2
# Numbers read from a traced tensor are 1: with this tolerance no iteration looks like the last one.
_NEVER_DONE = -2.0


def remember_all(optimizer: torch.optim.LBFGS) -> str:
    """Fill the history of an optimizer that has not stepped, and shorten its steps; returns what is taken for granted.

    The state is what torch's LBFGS keeps (torch/optim/lbfgs.py): of every past iteration a direction and a step, each
    as large as all parameters together, and the last direction and gradient.
    """
    group = optimizer.param_groups[0]
    kept, iterations = int(group["history_size"]), min(_ITERATIONS, int(group["max_iter"]))
    said = f"LBFGS keeps {kept} past iterations, and ends after {iterations} of at most {group['max_iter']}"
    group.update(max_iter=iterations, max_eval=iterations + 1, tolerance_change=_NEVER_DONE)
    parameters = group["params"]
    count = sum(one.numel() for one in parameters)
    sample: torch.Tensor = parameters[0].detach()

    def flat() -> torch.Tensor:
        return sample.new_empty(count)

    optimizer.state[parameters[0]].update(
        func_evals=1,
        n_iter=1,
        d=flat(),
        t=1.0,
        old_dirs=[flat() for _ in range(kept)],
        old_stps=[flat() for _ in range(kept)],
        ro=[sample.new_empty(()) for _ in range(kept)],
        H_diag=sample.new_empty(()),
        prev_flat_grad=flat(),
        prev_loss=1.0,
        al=[None] * kept,
    )
    return said
