"""What is assumed of values that only a card has, as in a healthy run at its largest, and where it was relied on.

A flag answers as when nothing is wrong: values are finite, nothing is empty, nobody leaves early. A count is its
largest: see `assumed_values` and `assumed_shapes`. Of a number of which nothing is known see `unknown_numbers`.
"""

from typing import Any

import torch
from torch import Tensor

from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.prediction.tracing.assumed_shapes import DIFFERENT, LARGEST, all_different
from vramfit.prediction.tracing.assumed_values import FINITE, KEPT, RULES, is_flag
from vramfit.prediction.tracing.op_schema import with_defaults
from vramfit.prediction.tracing.rounds import Rounds
from vramfit.prediction.tracing.step_lines import place
from vramfit.prediction.tracing.tensor_trees import tensors_in
from vramfit.prediction.tracing.undecided import Undecided
from vramfit.prediction.tracing.unknown_numbers import said_of
from vramfit.prediction.tracing.values import Number, Values

_EQUAL = "tensors that are compared as a whole are equal"
_SAMPLE = "sizes are those of the sample batch"
_TURNED = "a flag read from the card is what lets the step go on, or hold more"
_ENDED = "a loop that a value of the card ends holds no more in later rounds"
_MOST_READS = 1 << 15  # of unknown numbers: a loop that waits for one to change goes on for ever
_AFFORDABLE = 1 << 24  # elements that a kernel on the CPU may work through for the shape of its result


class NeedsValues(RuntimeError):
    """An operation needs values that only a card has."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs values that only a card has")
        self.func = what


class Assumptions:
    """Answers for values that are not known, and a list of what was assumed: `file:line: what`.

    `undecided` says which flags are answered the other way round, and `rounds` which loops have gone on long enough.
    """

    def __init__(
        self,
        values: Values,
        noted: list[str],
        policy: ValuePolicy = ASSUMED,
        *,
        undecided: Undecided | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        self._values = values
        self._noted = noted
        self._strict = policy.strict
        self._number = policy.number
        self._reads = 0
        self._undecided = undecided or Undecided()
        self._rounds = rounds or Rounds(lambda: 0)

    def note(self, why: str) -> None:
        """Remember that the caller's line relies on an assumption; "" is none."""
        said = f"{place()}: {why}"
        if why and said not in self._noted:
            self._noted.append(said)

    def infer(self, func: Any, args: Any, out: list[Tensor]) -> None:
        """Say what the results of an operation on unknown values are taken to be, where there is a rule."""
        if self._strict:
            return
        rule = RULES.get(func.overloadpacket)
        if rule is not None:
            rule(self._values, func, args, out)
        elif is_flag(args, out):
            given = [self.values_of(tensor)[0] for tensor in tensors_in(args)]
            result = self._values.computed_from(func, args, given)
            if result is not None:
                self._values.fill(out[0], bool(result), said_of(self._number))

    def values_of(self, tensor: Tensor) -> tuple[Tensor, str]:
        """The values of a tensor as a host tensor, and what was assumed, "" if they are known."""
        known = self._values.of(tensor)
        if known is not None:
            return known, self._values.why([tensor])
        number, why = (True, KEPT) if tensor.dtype is torch.bool else (self._number, said_of(self._number))
        return torch.tensor(number).to(tensor.dtype).expand(tensor.shape), why

    def number(self, tensor: Tensor, what: str) -> Number:
        """What `.item()` answers; notes what was assumed. `what` names the operation."""
        self._reads += self._values.of(tensor) is None
        if self._reads > _MOST_READS:
            raise NeedsValues(f"a loop that ends by {what}")
        number: Number = self.read(tensor, what).item()
        return number

    def agree(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> bool:
        """What an operation answers that compares whole tensors: they agree, where that is not known."""
        self._refuse(str(func))
        answer = self._values.computed(func, args, kwargs, given)
        return bool(self._decided(torch.tensor(True), _EQUAL)) if answer is None else bool(answer)

    def read(self, tensor: Tensor, what: str) -> Tensor:
        """The values as a host tensor that must not be written into; notes what was assumed."""
        self._refuse(what)
        return self._decided(*self.values_of(tensor))

    def _decided(self, value: Tensor, why: str) -> Tensor:
        """Values as the step is to see them, of which `why` was assumed; notes what was."""
        if why in ("", FINITE) or value.numel() != 1:
            self.note(why)
            return value
        if value.dtype is torch.bool and self._undecided.is_turned(place()):
            value, why = ~value, _TURNED
        if self._rounds.ended():
            value, why = (~value if value.dtype is torch.bool else torch.zeros_like(value)), _ENDED
        self.note(why)
        return value

    def _refuse(self, what: str) -> None:
        if self._strict:
            raise NeedsValues(what)

    def shaped(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> tuple[Any, str]:
        """What an operation whose result's shape depends on values returns, as host tensors, and what was assumed."""
        self._refuse(str(func))
        result, why = self._values.computed(func, args, kwargs, given), self._values.why(given)
        name, args = func.name().partition(".")[0], with_defaults(func, args)
        if "unique" in name and why:  # one number everywhere stands for values that differ
            result = None
        if name == "aten::_unique2" and result is None:
            result, why = all_different(args, self._values.counts.of(args[0])), DIFFERENT
        if result is None:
            largest, words = LARGEST.get(name, (None, said_of(self._number)))
            result = largest(args) if largest else self._ran(func, args, kwargs, given)
            why = why or words
        if result is None:
            raise NeedsValues(str(func))
        self.note(why or _SAMPLE)
        return result, why

    def _ran(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> Any:
        if sum(tensor.numel() for tensor in given) > _AFFORDABLE:
            return None
        return self._values.computed_from(func, args, [self.values_of(tensor)[0] for tensor in given], kwargs)
