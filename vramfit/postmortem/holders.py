"""Who holds what grows: the name of the variable or attribute, and the line of source that makes it grow."""

import ast
import gc
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from vramfit.postmortem.growth import Growth
from vramfit.postmortem.stacks import is_library

_GROWING = {"append", "extend", "insert", "add", "update", "appendleft", "setdefault", "put"}


@dataclass(frozen=True)
class Holder:
    """A name that holds what grows, and where it is made to grow; "" and None where not found."""

    name: str
    file: str | None = None
    line: int | None = None
    source: str = ""

    def __str__(self) -> str:
        if self.file is None or self.line is None:
            return self.name or "something without a name"
        return f"{self.source} at {Path(self.file).name}:{self.line}"


def holder_of(growth: Growth, frame: FrameType | None) -> Holder:
    """Who holds a growth; `frame` is where the step was made, whose functions are searched first."""
    name, namespace = growth.name, growth.namespace
    if growth.entry is not None:
        name, namespace = _name_of(growth.holder, frame)
    for file in _files(namespace, frame):
        found = _growing_line(file, name)
        if found is not None:
            return Holder(name, file, *found)
    return Holder(name)


def _name_of(container: Any, frame: FrameType | None) -> tuple[str, Mapping[str, Any] | None]:
    """The variable or attribute that holds a container, and the namespace it is in."""
    for namespace in _running(frame):
        for name, value in list(namespace.items()):
            if value is container:
                return name, namespace
    referrers = gc.get_referrers(container)
    owners = [one for one in referrers if isinstance(one, dict)]
    owners += [vars(one) for one in referrers if isinstance(getattr(one, "__dict__", None), dict)]
    owners = [one for one in owners if id(container) not in one]  # the watch's own suspects are kept by identity
    for owner in sorted(owners, key=lambda one: "__name__" not in one):
        for name, value in list(owner.items()):
            if value is container and isinstance(name, str):
                return name, owner
    outer = next((one for one in owners if len(one) < 64), None)
    return _name_of(outer, frame) if outer is not None else ("", None)


def _running(frame: FrameType | None) -> Iterator[Mapping[str, Any]]:
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            yield frame.f_locals
        frame = frame.f_back


def _files(namespace: Mapping[str, Any] | None, frame: FrameType | None) -> Iterator[str]:
    """Files in which a name may grow: its own module's or class's, then those of the running functions."""
    if namespace is not None:
        if isinstance(namespace.get("__file__"), str):
            yield namespace["__file__"]
        for owner in gc.get_referrers(namespace):
            module = sys.modules.get(type(owner).__module__)
            if isinstance(module, ModuleType) and not isinstance(owner, (FrameType, dict, list, tuple)):
                yield inspect.getsourcefile(module) or "" if hasattr(module, "__file__") else ""
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            yield frame.f_code.co_filename
        frame = frame.f_back


def _growing_line(file: str, name: str) -> tuple[int, str] | None:
    """The first statement of a file that makes a name grow, one within a loop or a function before others."""
    lines = _growing_lines(file).get(name)
    return lines[0] if lines else None


@lru_cache(maxsize=64)
def _growing_lines(file: str) -> dict[str, list[tuple[int, str]]]:
    try:
        text = Path(file).read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, list[tuple[int, str]]] = {}
    for node in ast.walk(tree):
        for name in _grown_by(node):
            statement = " ".join((ast.get_source_segment(text, node) or "").split())
            found.setdefault(name, []).append((node.lineno, statement))  # type: ignore[attr-defined]  # statements
    return found


def _grown_by(node: ast.AST) -> Iterator[str]:
    """The last names of what a statement makes grow: `losses` of `self.losses.append(loss)`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        if node.value.func.attr in _GROWING:
            yield from _last_names(node.value.func.value)
    elif isinstance(node, ast.AugAssign):
        yield from _last_names(node.target)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                yield from _last_names(target.value)
            else:
                yield from (one for one in _targets(target) if one in set(_names_in(node.value)))


def _targets(target: ast.AST) -> Iterator[str]:
    for part in target.elts if isinstance(target, ast.Tuple) else [target]:
        yield from _last_names(part)


def _last_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, (ast.Subscript, ast.Starred)):
        yield from _last_names(node.value)


def _names_in(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        yield from _last_names(part)
