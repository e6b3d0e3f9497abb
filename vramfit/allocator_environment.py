"""What the environment tells PyTorch's CUDA allocator, read without PyTorch: a malformed value aborts its import.

PyTorch 2.9 renamed PYTORCH_CUDA_ALLOC_CONF to PYTORCH_ALLOC_CONF and reads both, the new name first.
"""

import re
from collections.abc import Iterator, Mapping

from vramfit.errors import UsageError

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def given_options(environment: Mapping[str, str]) -> str:
    """The allocator's options as the environment gives them, empty for the defaults."""
    return next((environment[name] for name in NAMES if environment.get(name)), "")


def with_options(environment: Mapping[str, str], options: str) -> str:
    """The allocator's options of the environment, with others in place of those of the same name.

    PyTorch puts every option that it is not given back to its default, so those of the environment are given again.
    """
    given = given_options(environment)
    named = {name for name, _ in split_options(options)}
    kept = [f"{name}:{value}" for name, value in split_options(given) if name not in named]
    return ",".join([*kept, *([options] if options else [])])


def split_options(text: str) -> Iterator[tuple[str, str]]:
    """The names and values of `name:value,name:value`; a value may be a list in brackets.

    Raises:
        UsageError: the text cannot be read so; names the place.

    """
    rest = re.sub(r"\s+", "", text).lstrip(",")
    while rest:
        match = re.match(r"(\w+):(\[[^\]]*\]|[^,:\[\]]+)(?:,+|$)", rest)
        if match is None:
            raise UsageError(f"allocator options '{text}' cannot be read at '{rest}'; write name:value,name:value.")
        yield match[1], match[2]
        rest = rest[match.end() :]


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse what would abort the import of PyTorch.

    Raises:
        UsageError: a variable that cannot be read; names it.

    """
    for name in NAMES:
        try:
            list(split_options(environment.get(name, "")))
        except UsageError as error:
            raise UsageError(f"{name} would abort PyTorch: {error}") from None
