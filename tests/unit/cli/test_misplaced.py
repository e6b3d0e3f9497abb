"""A script's command where no command belongs, and what is said of it."""

import pytest

from vramfit.cli.misplaced import is_ambiguous, misplaced_command


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run --gpu rtx3070ti python train.py --lr 3", "`vramfit run --gpu rtx3070ti -- python train.py ...`"),
        ("run train.py --lr 3", "`vramfit run -- train.py ...`"),
        ("run torchrun --nproc_per_node 2 train.py", "`vramfit run -- torchrun --nproc_per_node 2 train.py`"),
        ("run --gpu rtx3070ti", "such as `vramfit run -- python train.py`"),
        ("check python3.11 -m mine.train --lr 3", "`vramfit check -- python3.11 -m mine.train --lr 3`"),
        (
            "explain -- python train.py --lr 3",
            "explain takes no script's command; `vramfit run -- python train.py ...`",
        ),
        ("probe .venv/bin/python train.py", "`vramfit run -- .venv/bin/python train.py`"),
        # What is wrong here is another thing.
        ("run --bogus -- python train.py", None),
        ("check --bogus", None),
        ("probe --model jobs.py --bogus", None),
        ("train --bogus", None),
    ],
)
def test_a_misplaced_command_is_told_its_place(line, said):
    verb, *words = line.split()
    sentence = misplaced_command(verb, words)
    assert (sentence is None) if said is None else (said in sentence)


@pytest.mark.parametrize(
    ("line", "ambiguous"),
    [
        ("run python train.py --steps 5", True),  # whose steps?
        ("run --steps 5 python train.py", False),
        ("run -- python train.py --steps 5", False),
        ("explain python --steps 5", False),
    ],
)
def test_options_after_a_command_without_a_lone_dash_are_not_guessed_at(line, ambiguous):
    verb, *words = line.split()
    assert is_ambiguous(verb, words) == ambiguous
