"""Where the memory of a peak goes, as tables for a terminal and a pipe."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vramfit.plan.choose import excess_of
from vramfit.prediction.explain import Explanation
from vramfit.records import Trial, Verdict
from vramfit.units import GIB, format_size

# What the parts that are no tensors are called to readers.
PART_NAMES = {
    "workspace": "library workspaces",
    "context": "CUDA context",
    "rounding": "rounding of blocks",
    "cached": "cached, not in use",
}
# Modules below this share of the peak are put together in the table; the JSON has them all.
_SMALL_SHARE = 0.005


def parts_table(explanation: Explanation) -> Table:
    """Every part of the peak: tensors by kind, hidden parts, the allocator's, and their sum."""
    table = _table("part of the peak")
    for part in explanation.kinds:
        _row(table, part.name, part.size_bytes, explanation.peak_bytes)
    for part in (*explanation.hidden, *explanation.allocator):
        _row(table, PART_NAMES[part.name], part.size_bytes, explanation.peak_bytes)
    _row(table, "peak of the card", explanation.peak_bytes, explanation.peak_bytes, style="bold")
    return table


def modules_table(explanation: Explanation) -> Table:
    """The tensors of the peak by module, two levels; small ones together."""
    table = _table("module, at the peak")
    small = 0
    for module in explanation.modules:
        if module.size_bytes < _SMALL_SHARE * explanation.peak_bytes:
            small += module.size_bytes
            continue
        _row(table, module.name, module.size_bytes, explanation.peak_bytes)
        shown = [part for part in module.parts if part.size_bytes >= _SMALL_SHARE * explanation.peak_bytes]
        for part in shown:
            _row(table, f"  {part.name}", part.size_bytes, explanation.peak_bytes)
        rest = sum(part.size_bytes for part in module.parts) - sum(part.size_bytes for part in shown)
        if rest:
            _row(table, "  others", rest, explanation.peak_bytes)
    if small:
        _row(table, "others", small, explanation.peak_bytes)
    _row(table, "tensors", explanation.tensors_bytes, explanation.peak_bytes, style="bold")
    return table


def words(explanation: Explanation) -> str:
    """The peak and when it comes, in a sentence."""
    where = f" of {explanation.module}" if explanation.module else ""
    moment = ", ".join(dict.fromkeys((explanation.part, explanation.phase)))  # validation is both
    return (
        f"Predicted peak {format_size(explanation.peak_bytes)} at batch {explanation.micro_batch}: "
        f"in {moment}, at {explanation.operation}{where}."
    )


def shortage(trial: Trial) -> str | None:
    """That the peak is more than the card has, or may be, in a sentence; None where it fits."""
    if trial.verdict is Verdict.FITS:
        return None
    could = "It may not fit" if trial.verdict is Verdict.RISKY else "It does not fit"
    return f"{could}: the card has {format_size(trial.budget_bytes)}, and the peak {excess_of(trial)}."


def verdict(trial: Trial) -> str:
    """Whether a batch fits, and by how much, in a sentence."""
    room = f"the card has {format_size(trial.budget_bytes)}, {format_size(trial.headroom_bytes)} more"
    return shortage(trial) or f"It fits: {room}."


def _table(label: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(label, overflow="fold")
    for column in ("GiB", "share", "bytes"):
        table.add_column(column, justify="right")
    return table


def _row(table: Table, name: str, size_bytes: int, whole: int, style: str | None = None) -> None:
    share = f"{100 * size_bytes / max(whole, 1):.1f} %"
    table.add_row(name, f"{size_bytes / GIB:.3f}", share, str(size_bytes), style=style)
