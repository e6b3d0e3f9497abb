"""Options of a run as fields of frozen dataclasses: type, default, words and limits stand once, with the field.

The command line is made of these fields, a checkpoint keeps them as plain values, and a run that goes on from one is
compared with them by name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from vramfit.errors import UsageError

_KEY = "option"
# What a resumed run may do with an option: change it and say so, change it silently, or not change it.
OnResume = Literal["told", "silent", "fixed"]


@dataclass(frozen=True, kw_only=True)
class OptionInfo:
    """What people read of an option, and what its value may be.

    Attributes:
        help: one line.
        flags: how the command line spells it, where not `--` and the field's name with hyphens.
        metavar: what stands for its value in the help.
        minimum: the least value.
        above: what the value must exceed.
        read: reads the value from its text, where the type alone does not tell how.
        shown: the default in the words that `read` takes.
        on_resume: what a resumed run may do with it.

    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    minimum: float | None = None
    above: float | None = None
    read: Callable[[str], Any] | None = None
    shown: str | None = None
    on_resume: OnResume = "told"

    def flag_of(self, name: str) -> str:
        """The option of a field as it is typed, such as `--lr`."""
        return self.flags[0].split("/")[0] if self.flags else f"--{name.replace('_', '-')}"

    def require(self, name: str, value: Any) -> None:
        """Refuse a number beyond the limits.

        Raises:
            UsageError: names the option and what to use.

        """
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        flag = self.flag_of(name)
        if self.minimum is not None and value < self.minimum:
            raise UsageError(f"{flag} {value} makes no sense; use {self.minimum:g} or more.")
        if self.above is not None and value <= self.above:
            raise UsageError(f"{flag} {value} makes no sense; use a number above {self.above:g}.")


def option(default: Any = MISSING, help: str = "", **info: Any) -> Any:  # the word of argparse and click
    """A dataclass field that is an option; `info` are the attributes of `OptionInfo`."""
    return field(default=default, metadata={_KEY: OptionInfo(help=help, **info)})


def options_of(record: Any) -> Iterator[tuple["Field[Any]", OptionInfo]]:
    """The fields of a dataclass, or of an instance of one, that are options."""
    return ((one, one.metadata[_KEY]) for one in fields(record) if _KEY in one.metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every record of options: limits are checked as it is made."""

    def __post_init__(self) -> None:
        for one, info in options_of(self):
            info.require(one.name, getattr(self, one.name))

    def plain(self) -> dict[str, Any]:
        """These options in types that load with `weights_only`."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def changes_from(self, config: Mapping[str, Any]) -> list[str]:
        """What differs from the options of a checkpoint, as `name old -> new`, where it changes the result."""
        mine = self.plain()
        return [
            f"{one.name} {config[one.name]} -> {mine[one.name]}"
            for one, info in options_of(self)
            if info.on_resume != "silent"
            and one.name in config
            and _comparable(config[one.name]) != _comparable(mine[one.name])
        ]

    def require_same_run(self, config: Mapping[str, Any]) -> None:
        """Refuse to go on with other parameters to learn, or other data, than a checkpoint's.

        Raises:
            UsageError: names the option.

        """
        for one, info in options_of(self):
            mine, theirs = getattr(self, one.name), config.get(one.name, one.default)
            if self.is_fixed(one.name, info) and _comparable(mine) != _comparable(theirs):
                raise UsageError(
                    f"{info.flag_of(one.name)} is {_as_typed(mine)} here and {_as_typed(theirs)} in the checkpoint; "
                    "resume with its own, or begin a new run from its weights with --weights FILE."
                )

    def is_fixed(self, _name: str, info: OptionInfo) -> bool:
        """Whether a resumed run must have the checkpoint's value."""
        return info.on_resume == "fixed"


def _as_typed(value: Any) -> str:
    words = ",".join(value) if isinstance(value, (list, tuple)) else str("" if value is None else value)
    return words or "not given"


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
