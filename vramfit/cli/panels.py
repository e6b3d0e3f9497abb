"""The help of a verb: its options in panels, the ones that most people need first."""

from typing import Any

import typer
from typer.core import TyperCommand

from vramfit.cli.misplaced import is_ambiguous, misplaced_command
from vramfit.errors import UsageError

# Newer versions of Typer carry their own copy of click; its errors are reached through a name that all have.
_ParserError: type[Exception] = typer.BadParameter.__mro__[1]

# By the first name of an option. What stands in no panel is of the advanced ones.
FIRST = (
    *("checkpoint", "dataset-path", "config", "model", "image-size", "image-sizes", "gpu", "vram", "batch-size"),
    *("batch-sizes", "auto-batch", "levers", "epochs", "lr", "save-dir", "resume", "export", "output", "html"),
    *("find", "compare", "to", "films", "json"),
)
PANELS: dict[str, tuple[str, ...]] = {
    "Data": (
        *("dataset-path", "format", "annotator", "split", "landmarks", "skip-bad", "cache-dir", "folds", "fold"),
        *("augmentation", "artefacts", "num-workers", "pin-memory", "images", "draws", "each", "films", "height"),
    ),
    "Model": (
        *("model", "image-size", "image-sizes", "weights", "freeze", "loss", "heatmap-stride", "sigma", "decode"),
        *("tta", "ensemble", "checkpoint", "compare", "task", "seq-len", "lora", "load-in"),
    ),
    "Memory": (
        *(
            "gpu",
            "mig",
            "memory",
            "vram",
            "reserve",
            "batch-size",
            "batch-sizes",
            "auto-batch",
            "effective-batch",
            "grad-accum",
        ),
        *("levers", "profile", "amp", "mixed-precision", "channels-last", "device", "watermark", "grow-back"),
        *(
            "fresh",
            "mode",
            "objective",
            "price",
            "slurm",
            "price-per-hour",
            "find",
            "maximum",
            "accumulation",
            "axis",
            "lengths",
            "buckets",
            "length-multiple",
            "alloc-conf",
            "emulated-bf16",
        ),
    ),
    "Optimisation": (
        *("epochs", "lr", "warmup-epochs", "weight-decay", "backbone-lr-scale", "clip-norm", "ema-decay"),
        *("difficulty", "patience", "seed", "resume"),
    ),
    "Output": (
        *("output", "export", "html", "json", "force", "save-dir", "log-dir", "log-images", "save-every", "keep"),
        *("save-every-steps", "save-every-minutes", "to", "overlay", "measures", "lock", "update", "sarif", "annotate"),
    ),
}
_OTHERS = "Advanced"
_AT_FIRST = 10


class Verb(TyperCommand):
    """A verb whose help has a panel of the options that matter first, and one for each kind of the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the verb.

        Raises:
            UsageError: a script's command is where none belongs.

        """
        verb, words = str(ctx.info_name), list(args)
        if is_ambiguous(verb, words):
            raise UsageError(misplaced_command(verb, words) or "")
        try:
            return super().parse_args(ctx, args)
        except _ParserError as error:
            said = misplaced_command(verb, words)
            if said is None:
                raise
            raise UsageError(said) from error

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the panels that are not empty."""
        arguments: list[tuple[str, str]] = []
        options: dict[str, tuple[str, str]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                arguments.append(record)
            else:
                options[name_of(param)] = record
        panels = {"Arguments": arguments, **_panels(options)}
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def name_of(param: Any) -> str:
    """The first name of an option, without hyphens before it."""
    return str(next((name for name in param.opts if name.startswith("--")), param.opts[0])).lstrip("-")


def _panels(options: dict[str, tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """The rows of each panel; a verb of few options has one panel of them."""
    if len(options) <= _AT_FIRST:
        return {"Options": [*options.values()]}
    first = [name for name in FIRST if name in options][:_AT_FIRST]
    rest = {name: row for name, row in options.items() if name not in first}
    panels = {"Options": [options[name] for name in first]}
    for title, names in PANELS.items():
        panels[title] = [row for name, row in rest.items() if name in names]
    known = {name for names in PANELS.values() for name in names}
    panels[_OTHERS] = [row for name, row in rest.items() if name not in known]
    return panels
