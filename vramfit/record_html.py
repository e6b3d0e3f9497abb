"""A record as an HTML table, as notebooks show it: sizes in GiB or MiB, durations in words, what is known."""

from collections.abc import Sequence
from html import escape
from typing import Any

from pydantic import BaseModel

from vramfit.units import format_duration, format_duration_range, format_size


def html_table(record: BaseModel) -> str:
    """The fields of a record, one a row; records in it are tables, and several of a kind rows of one table."""
    rows = [
        f"<tr><th style='text-align:left'>{_label(name)}</th><td>{_cell(name, value)}</td></tr>"
        for name, value in _known(record)
    ]
    return f"<table>{''.join(rows)}</table>"


def _known(record: BaseModel) -> list[tuple[str, Any]]:
    """Fields and computed figures that have a value."""
    model = type(record)
    named = [(name, getattr(record, name)) for name in (*model.model_fields, *model.model_computed_fields)]
    return [(name, value) for name, value in named if value not in (None, (), {}, "")]


def _label(name: str) -> str:
    return escape(name.removesuffix("_bytes").removesuffix("_s").replace("_", " "))


def _cell(name: str, value: Any) -> str:
    if isinstance(value, BaseModel):
        return html_table(value)
    if isinstance(value, tuple) and isinstance(value[0], BaseModel):
        return _grid(value)
    return escape(_words(name, value))


def _grid(records: Sequence[BaseModel]) -> str:
    known = [dict(_known(record)) for record in records]
    names = list(dict.fromkeys(name for row in known for name in row))
    head = "".join(f"<th>{_label(name)}</th>" for name in names)
    rows = ("".join(f"<td>{_cell(name, row[name]) if name in row else '-'}</td>" for name in names) for row in known)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _words(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return "-".join(map(format_size, value)) if isinstance(value, tuple) else format_size(value)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return format_duration_range(*value) if isinstance(value, tuple) else format_duration(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)
