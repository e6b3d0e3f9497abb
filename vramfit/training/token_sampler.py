"""A sampler of batches by their padded size: many short samples or few long ones, never more than was proven to fit."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed
from torch.utils.data import Sampler

from vramfit.errors import DataError, UsageError
from vramfit.plan.length_plan import LengthPlan
from vramfit.plan.lengths import Length, as_length, covers, name_of

if TYPE_CHECKING:
    from torch.utils.data import Dataset


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches of indices of which none is above what a plan proved, for `DataLoader(batch_sampler=...)`.

    A batch holds samples that one of the plan's lengths covers, as many as were proven to fit there. What an epoch
    leaves over at one length goes into the batches of the next longer one. Attention whose memory grows with the square
    of the length costs what it costs: each length has a batch of its own, and none is worked out from a budget.

    Args:
        lengths: of every sample, in the order of the data set: numbers, or (height, width); or the Dataset itself,
            which is read once.
        plan: what fits, from `vramfit.fit_lengths`, or `LengthPlan.read` of what `vramfit probe --axis` exported.
        shuffle: another order in each epoch; else batches come from the shortest to the longest.
        seed: of the order; the same on every rank.
        drop_last: leave out a rank's share that is no whole step, and batches that are not full; else the first batches
            come again so that every rank takes as many steps.
        multiple: batches of at least so many samples are made a multiple of it.
        rank, world_size: this process among all; those of `torch.distributed` where it is initialised.

    All ranks step together, so their batches of one step are neighbours in length. A shuffled epoch begins with a batch
    of the longest samples: an allocator that has served it once has room for the others, and a mistake shows at once.

    Known limitations:
        The mean losses of a short and of a long batch weigh alike, as with every sampler by length. `state_dict` knows
        the batches that were drawn; a DataLoader with workers draws ahead of training: pass `trained`. A state that was
        loaded holds for the next iterator alone, also where that one is left after a peek.

    >>> import vramfit
    >>> from vramfit.plan.length_plan import LengthPlan, ProvenLength
    >>> from vramfit.records import Budget, JobKey, Machine, Trial
    >>> def proven(length, batch):
    ...     trial = Trial(source="predicted", micro_batch=batch, verdict="fits", budget_bytes=1)
    ...     return ProvenLength(length=(length,), samples=1, trial=trial)
    >>> plan = LengthPlan(
    ...     vramfit_version="", axis="tokens", source="predicted", counted=True, job=JobKey(name="", model=""),
    ...     machine=Machine(), budget=Budget(total_bytes=1), proven=(proven(10, 4), proven(40, 1)),
    ... )
    >>> list(vramfit.TokenBudgetSampler([5, 40, 7, 9, 10], plan, shuffle=False))
    [[0, 2, 3, 4], [1]]

    Raises:
        DataError: a sample that no proven length covers; names it.
        UsageError: no such rank.

    """

    def __init__(
        self,
        lengths: "Sequence[int] | Sequence[Length] | Dataset[Any]",
        plan: LengthPlan,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        multiple: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.plan = plan
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.multiple = multiple
        self.rank, self.world_size = _rank_of(rank, world_size)
        self.epoch = 0
        self.drawn = 0
        self._resume_at = 0
        self._samples = _by_place(_lengths(lengths, plan.axis), plan)
        self._steps = len(self._groups(random.Random(seed)))

    def __len__(self) -> int:
        """Batches of this rank in an epoch, the same for all ranks and epochs."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches of the epoch: all, or once after `load_state_dict` those that it leaves."""
        start, self._resume_at = self._resume_at, 0
        self.drawn = start
        groups = self._groups(random.Random(f"{self.seed} {self.epoch}"))
        for drawn, group in enumerate(groups[start:], start=start + 1):
            self.drawn = drawn
            yield group[self.rank]

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch; call it before each, on every rank.

        Another epoch than the present one begins at its beginning; the present one keeps what `load_state_dict` set.
        """
        if epoch != self.epoch:
            self.epoch, self.drawn, self._resume_at = epoch, 0, 0

    def state_dict(self, *, trained: int | None = None) -> dict[str, int]:
        """Where the epoch is: its number, and how many of its batches were `trained`, or else drawn, on each rank.

        Batches from before a resume count too. At the end of an epoch these are all of its batches.
        """
        return {"seed": self.seed, "epoch": self.epoch, "drawn": self.drawn if trained is None else trained}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where `state_dict` left off, with the next iterator; of an epoch that was at its end nothing is left.

        Raises:
            UsageError: it was of another order.

        """
        if state["seed"] != self.seed:
            raise UsageError(
                f"The sampler's state has seed {state['seed']}, and this one {self.seed}; give it that seed."
            )
        self.epoch, self.drawn, self._resume_at = state["epoch"], state["drawn"], state["drawn"]

    def _groups(self, order: random.Random) -> list[list[list[int]]]:
        """The steps of an epoch, each with a batch for every rank."""
        batches = self._batches(order)
        whole = len(batches) // self.world_size * self.world_size
        if self.drop_last:
            batches = batches[:whole]
        elif whole < len(batches):
            missing = whole + self.world_size - len(batches)
            batches += [batches[place % len(batches)] for place in range(missing)]
        groups = [batches[start : start + self.world_size] for start in range(0, len(batches), self.world_size)]
        if self.shuffle and groups:
            longest = groups.pop()
            order.shuffle(groups)
            groups.insert(0, longest)
        return groups

    def _batches(self, order: random.Random) -> list[list[int]]:
        """Every batch of an epoch, from the shortest samples to the longest."""
        batches: list[list[int]] = []
        left: dict[int, list[int]] = {}
        for place, indices in enumerate(self._samples):
            waiting = [*left.pop(place, []), *indices]
            if self.shuffle:
                order.shuffle(waiting)
            size = self._size_at(place)
            whole = len(waiting) // size * size
            batches += [waiting[start : start + size] for start in range(0, whole, size)]
            rest, longer = waiting[whole:], self._next_longer(place)
            if rest and longer is not None:
                left.setdefault(longer, []).extend(rest)
            elif rest and not self.drop_last:
                batches.append(rest)
        return batches

    def _size_at(self, place: int) -> int:
        size = self.plan.proven[place].trial.micro_batch
        return size // self.multiple * self.multiple or size

    def _next_longer(self, place: int) -> int | None:
        """The next length that covers this one; None for the longest."""
        proven = self.plan.proven
        later = range(place + 1, len(proven))
        return next((one for one in later if covers(proven[one].length, proven[place].length)), None)


def _by_place(lengths: Iterable[Length], plan: LengthPlan) -> list[list[int]]:
    """The samples by the proven length that takes the most of them."""
    found: list[list[int]] = [[] for _ in plan.proven]
    places: dict[Length, int | None] = {}
    for index, length in enumerate(lengths):
        if length not in places:
            places[length] = plan.place_of(length)
        place = places[length]
        if place is None:
            raise DataError(
                f"sample {index} is {name_of(length)} long, and batches were proven up to "
                f"{name_of(plan.longest.length)}; shorten it, leave it out, or probe with these lengths."
            )
        found[place].append(index)
    return found


def _lengths(lengths: "Sequence[int] | Sequence[Length] | Dataset[Any]", axis: str) -> list[Length]:
    from torch.utils.data import Dataset

    from vramfit.jobs.axis import lengths_of

    if isinstance(lengths, Dataset):
        return lengths_of(lengths, axis)
    return [as_length(one) for one in lengths]


def _rank_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    world_size = world_size or (torch.distributed.get_world_size() if shared else 1)
    rank = rank if rank is not None else (torch.distributed.get_rank() if shared else 0)
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is none of {world_size} ranks; they count from 0.")
    return rank, world_size
