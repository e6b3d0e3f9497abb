"""A verb's parameters made of the fields of an options record, so that no help or default is spelled twice."""

from collections.abc import Callable
from dataclasses import MISSING, Field
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer

from vramfit.options import OptionInfo, Options, options_of


def takes(record: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A verb that is given every option of a record as a keyword, beside the parameters it names itself.

    A parameter that the verb names takes the place of the record's option of that name. The options without a default
    come first.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, include_extras=True)
        own = {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in signature(verb).parameters.items()
            if parameter.kind is not Parameter.VAR_KEYWORD
        }
        made = _parameters(record)
        every = sorted([*{**made, **own}.values()], key=lambda one: one.default is not Parameter.empty)
        verb.__signature__ = Signature(every)  # type: ignore[attr-defined]  # what inspect and Typer read
        verb.__annotations__ = {one.name: one.annotation for one in every}
        return verb

    return decorate


def read(record: type[Options], given: dict[str, Any]) -> dict[str, Any]:
    """The values of a record's options from what the parser gives: texts are read, lists become tuples."""
    return {one.name: _value(one, info, given[one.name]) for one, info in options_of(record) if one.name in given}


def _value(one: "Field[Any]", info: OptionInfo, given: Any) -> Any:
    if info.read is not None:
        return one.default if given is None else info.read(given)
    return tuple(given) if isinstance(given, list) else given


def _parameters(record: type[Options]) -> dict[str, Parameter]:
    hints = get_type_hints(record)
    return {one.name: _parameter(one, info, hints[one.name]) for one, info in options_of(record)}


def _parameter(one: "Field[Any]", info: OptionInfo, kind: Any) -> Parameter:
    flags = info.flags or ((info.flag_of(one.name),) if kind is bool else ())
    settings: dict[str, Any] = {"help": info.help, "metavar": info.metavar, "min": _lowest(info)}
    default = Parameter.empty if one.default is MISSING else one.default
    if info.read is not None:
        kind, default, settings["min"] = str | None, info.shown, None
    annotation = Annotated[kind, typer.Option(*flags, **settings)]
    return Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _lowest(info: OptionInfo) -> float | int | None:
    return int(info.minimum) if info.minimum is not None and float(info.minimum).is_integer() else info.minimum
