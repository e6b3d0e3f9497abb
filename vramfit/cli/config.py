"""Options from a file: `--config FILE`, which every verb has; what is typed beside it counts more.

A run writes its own into its folder (`run.yaml`), so that `vramfit train --config FOLDER/run.yaml` repeats it.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from vramfit.cli.arguments import IMAGE_SIZE
from vramfit.errors import UsageError
from vramfit.options import Options, options_of

FLAG = "--config"
_TASK = "task"  # chooses the verb itself, before there are options
# Who repeats a run begins it anew, whatever it went on from.
_OF_ONE_START = ("resume", "fresh")


def with_config(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with the option `--config`, which is read before the others and gives them their defaults."""

    @wraps(verb)
    def configured(*, config: Path | None = None, **given: Any) -> None:
        del config  # `_give_defaults` has read it
        verb(**given)

    hints = get_type_hints(verb, include_extras=True)
    option = Annotated[
        Path | None,
        typer.Option(
            FLAG, metavar="FILE", is_eager=True, callback=_give_defaults, help="Options from a YAML or TOML file."
        ),
    ]
    parameters = [one.replace(annotation=hints[one.name]) for one in signature(verb).parameters.values()]
    parameters.append(Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=option))
    configured.__signature__ = Signature(  # type: ignore[attr-defined]  # what inspect and Typer read
        [one.replace(kind=Parameter.KEYWORD_ONLY) for one in parameters]
    )
    configured.__annotations__ = {one.name: one.annotation for one in parameters}
    return configured


def task_in_config(words: list[str]) -> str | None:
    """The task that the file of `--config` names, where there is one; None where none is named."""
    for place, word in enumerate(words):
        flag, sign, value = word.partition("=")
        if flag == FLAG:
            file = value if sign else "".join(words[place + 1 : place + 2])
            task = _load(Path(file)).get(_TASK) if file else None
            return None if task is None else str(task)
    return None


def config_text(options: Options, more: Mapping[str, Any]) -> str:
    """A run's options as YAML that `--config` reads, by the names of the command line; `more` are the verb's own."""
    import yaml

    plain = options.plain()
    named = {info.flag_of(one.name).removeprefix("--"): plain[one.name] for one, info in options_of(options)}
    kept = {name: value for name, value in {**named, **more}.items() if name not in _OF_ONE_START}
    said = {name: _as_typed(value, [f"--{name}"]) for name, value in kept.items() if value not in (None, (), [])}
    return str(yaml.safe_dump(said, sort_keys=False, allow_unicode=True))


def _as_typed(value: Any, flags: Sequence[str]) -> Any:
    """A list in one word: an image size as 512x640, others as 6,5,4."""
    if isinstance(value, tuple | list):
        return ("x" if set(IMAGE_SIZE) & {*flags} else ",").join(map(str, value))
    return value


def _give_defaults(context: typer.Context, config: Path | None) -> Path | None:
    if config is not None:
        context.default_map = dict(_defaults(config, context.command.params))
    return config


def _defaults(file: Path, params: list[Any]) -> Mapping[str, Any]:
    """The values of a file by the names of a verb's parameters.

    Raises:
        UsageError: the file cannot be read, or names an option that the verb does not have.

    """
    by_flag = {flag.lstrip("-"): param for param in params for flag in (*param.opts, *param.secondary_opts)}
    by_flag |= {param.name.replace("_", "-"): param for param in params}
    found = {}
    for key, value in _load(file).items():
        name = str(key).replace("_", "-")
        if name == _TASK or value is None:
            continue
        if name not in by_flag:
            near = difflib.get_close_matches(name, by_flag, n=1)
            raise UsageError(f"{file}: there is no option '{key}'{f'; near: {near[0]}' if near else ''}.")
        found[by_flag[name].name] = _read(value, by_flag[name])
    return found


def _read(value: Any, param: Any) -> Any:
    """A value of a file as the parser takes it: as typed, but for switches and options that may be given often."""
    if getattr(param, "is_flag", False):
        return value
    if isinstance(value, list) and (param.multiple or param.nargs != 1):
        return [str(one) for one in value]
    if isinstance(value, bool):
        return "on" if value else "off"  # YAML reads the word off as false
    return str(_as_typed(value, param.opts))


def _load(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{FLAG} {file} cannot be read ({error}); name a YAML or TOML file.") from None
    content = _toml(file, text) if file.suffix.lower() == ".toml" else _yaml(file, text)
    if not isinstance(content, dict):
        raise UsageError(f"{FLAG} {file} has no names of options; write lines such as `batch-size: 6`.")
    return content


def _toml(file: Path, text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{FLAG} {file} is no TOML: {error}; mend that line.") from None


def _yaml(file: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{FLAG} {file} is no YAML: {' '.join(str(error).split())}; mend that line.") from None
