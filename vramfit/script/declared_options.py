"""The options that a script declares, read from its own source, and what a misspelt one may have meant."""

import ast
import re
from difflib import get_close_matches
from pathlib import Path

from vramfit.errors import ScriptFailed
from vramfit.script.command import Command

# A parser of options says so of arguments that it does not know.
USAGE_EXIT = 2


def source_of(command: Command) -> ast.Module | None:
    """The syntax tree of a command's own file; None where there is none or it cannot be parsed."""
    places = [Path(command.target)]
    if command.kind == "module":
        folder = Path(*command.target.split("."))
        places = [folder.with_suffix(".py"), folder / "__main__.py"]
    for place in places:
        if place.is_file():
            try:
                return ast.parse(place.read_bytes())
            except SyntaxError:
                return None
    return None


def names_optimizers(tree: ast.Module | None) -> bool:
    """Whether a script names `torch.optim`, in an import or as it uses it."""
    nodes = list(ast.walk(tree)) if tree is not None else []
    imported = (one.name for node in nodes if isinstance(node, ast.Import) for one in node.names)
    modules = (f"{node.module}" for node in nodes if isinstance(node, ast.ImportFrom))
    names = (one.name for node in nodes if isinstance(node, ast.ImportFrom) for one in node.names)
    attributes = (node.attr for node in nodes if isinstance(node, ast.Attribute))
    return any("optim" in name.split(".") for name in (*imported, *modules, *names, *attributes))


def options_in(tree: ast.Module) -> list[str]:
    """The strings of a script that look like options, such as `--batch-size`, in the order of the source."""
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [string for string in strings if re.match(r"--[a-zA-Z][\w.-]*$", string)]


def named_wrongly(option: str, command: Command, error: ScriptFailed) -> ScriptFailed:
    """The error of a script that refused its arguments, with the option of its own that was meant by a searched one."""
    name = option.lstrip("-").partition("=")[0].replace("_", "-").lower()
    tree = source_of(command) if error.exit_code == USAGE_EXIT else None
    declared = {one.lstrip("-").replace("_", "-").lower(): one for one in options_in(tree)} if tree else {}
    nearest = get_close_matches(name, declared, n=1)
    if name in declared or not nearest:
        return error
    meant = declared[nearest[0]].lstrip("-")
    said = f"'{command.name}' has no option {option}; did you mean --find {meant}?"
    return ScriptFailed(said, exit_code=error.exit_code)
