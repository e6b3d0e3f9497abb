"""The levers by name. A module of this package that registers one is found by itself."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from vramfit.errors import UsageError
from vramfit.jobs import levers
from vramfit.jobs.levers.kind import COSTS, LeverKind

_registered: dict[str, LeverKind] = {}


def register(kind: type[LeverKind]) -> type[LeverKind]:
    """Class decorator: make a lever known by its name.

    Raises:
        ValueError: another lever has the name.

    """
    if kind.name in _registered:
        raise ValueError(f"{kind.name} is registered twice: {type(_registered[kind.name])} and {kind}")
    _registered[kind.name] = kind()
    return kind


def kinds() -> tuple[LeverKind, ...]:
    """Every lever, in the order in which they are tried: those that cost nothing first, then those that cost time."""
    _import_all()
    return tuple(sorted(_registered.values(), key=lambda kind: (COSTS.index(kind.cost), kind.order, kind.name)))


def names() -> tuple[str, ...]:
    """The names of all levers, in the same order."""
    return tuple(kind.name for kind in kinds())


def kind_of(name: str) -> LeverKind:
    """The lever of a name; hyphens count as underscores.

    Raises:
        UsageError: there is none; the message lists them.

    """
    _import_all()
    found = _registered.get(name.replace("-", "_"))
    if found is None:
        raise UsageError(f"'{name}' is not a lever; use one of {', '.join(names())}.")
    return found


@cache
def _import_all() -> None:
    for module in iter_modules(levers.__path__):
        import_module(f"{levers.__name__}.{module.name}")
