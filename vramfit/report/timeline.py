"""One self-contained page: where the memory of a peak goes, and how one step gets there, drawn by kind."""

import json
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from vramfit.prediction.explain import Explanation, Part
from vramfit.prediction.timeline import Column, Timeline
from vramfit.records import Trial
from vramfit.report.explain import PART_NAMES, verdict, words
from vramfit.report.page import page
from vramfit.units import GIB, format_size

_WIDTH, _HEIGHT = 1000, 380
_LEFT, _TOP, _BOTTOM = 64, 22, 44
_COLOURS = {
    "parameter": "#4e79a7",
    "buffer": "#a0cbe8",
    "average": "#499894",
    "optimizer state": "#59a14f",
    "gradient": "#edc948",
    "cast weight": "#b07aa1",
    "input": "#9c755f",
    "activation": "#f28e2b",
    "loss": "#d4a6c8",
    "temporary": "#e15759",
    "workspace": "#79706e",
    "context": "#bab0ac",
    "rounding": "#d7b5a6",
    "cached": "#d3d3d3",
}


def timeline_page(explanation: Explanation, title: str, trial: Trial | None = None) -> str:
    """The page as HTML text; it loads nothing from elsewhere.

    Args:
        explanation: where the memory of the peak goes.
        title: what was explained, on what card.
        trial: the same batch as it was judged: whether it fits, and the budget that is drawn; None for neither.

    """
    timeline = explanation.timeline
    kinds = [kind for place, kind in enumerate(timeline.kinds) if any(c.sizes_bytes[place] for c in timeline.columns)]
    sections = (
        f"<h1>{escape(title)}</h1>",
        f"<p class='lead'>{escape(words(explanation))}</p>",
        f"<p class='lead'><strong>{escape(verdict(trial))}</strong></p>" if trial else "",
        _bar(explanation),
        f"<h2>Through {escape(timeline.part)}</h2>",
        "<p>What tensors and libraries hold after each allocation, in their order (not to scale in time). "
        "Point at the drawing to read a moment.</p>",
        f"<figure><div class='scrolls'>{_drawing(explanation, kinds, trial)}</div>{_legend(kinds)}"
        "<p id='moment' aria-live='polite'>&nbsp;</p></figure>",
        "<h2>At the peak</h2>",
        f"<div class='tables'>{_tables(explanation)}</div>",
    )
    data = json.dumps(_data(timeline), separators=(",", ":")).replace("</", "<\\/")
    script = f"<script type='application/json' id='data'>{data}</script><script>{_SCRIPT}</script>"
    return page(title, sections, style=_STYLE, script=script)


def _bar(explanation: Explanation) -> str:
    parts = (*explanation.kinds, *explanation.hidden, *explanation.allocator)
    whole = explanation.peak_bytes or 1
    pieces = "".join(_piece(part, whole) for part in parts if part.size_bytes)
    return f"<div class='bar' role='img' aria-label='Parts of the peak'>{pieces}</div>"


def _piece(part: Part, whole: int) -> str:
    label = escape(f"{PART_NAMES.get(part.name, part.name)}: {format_size(part.size_bytes)}", quote=True)
    return f"<span style='flex:{part.size_bytes / whole:.5f};background:{_COLOURS[part.name]}' title='{label}'></span>"


def _drawing(explanation: Explanation, kinds: list[str], trial: Trial | None) -> str:
    timeline = explanation.timeline
    levels = [(explanation.peak_bytes, "peak of the card")]
    levels += [(trial.budget_bytes, "budget")] if trial else []
    held = max((sum(column.sizes_bytes) for column in timeline.columns), default=0)
    most = max(held, *(size for size, _ in levels)) or 1
    scale = (_HEIGHT - _TOP - _BOTTOM) / (most * 1.06)
    return (
        f"<svg id='drawing' viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='Memory held through the step'>"
        f"{''.join(_grid(most, scale))}{''.join(_areas(timeline, kinds, scale))}{''.join(_phases(timeline))}"
        f"{_peak_line(timeline)}{''.join(_levels(levels, scale))}"
        f"<line id='cursor' y1='{_TOP}' y2='{_HEIGHT - _BOTTOM}' class='cursor'/></svg>"
    )


def _grid(most: int, scale: float) -> Iterator[str]:
    step = next(step for step in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50) if most / GIB / step <= 8 or step == 50)
    for tick in range(int(most / GIB / step) + 1):
        y = _y(tick * step * GIB, scale)
        yield f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH}' y1='{y:.1f}' y2='{y:.1f}'/>"
        yield f"<text x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{tick * step:g} GiB</text>"


def _areas(timeline: Timeline, kinds: list[str], scale: float) -> Iterator[str]:
    floor = [0] * len(timeline.columns)
    for kind in kinds:
        place = timeline.kinds.index(kind)
        top = [low + column.sizes_bytes[place] for low, column in zip(floor, timeline.columns, strict=True)]
        outline = " ".join([*_points(timeline, top, scale), *reversed(list(_points(timeline, floor, scale)))])
        yield f"<polygon fill='{_COLOURS[kind]}' points='{outline}'><title>{kind}</title></polygon>"
        floor = top


def _points(timeline: Timeline, sizes: Iterable[int], scale: float) -> Iterator[str]:
    """Two points a column, so that a column is as wide as its stretch of events."""
    count = len(timeline.columns)
    for place, size in enumerate(sizes):
        y = _y(size, scale)
        yield f"{_x(place, count):.1f},{y:.1f}"
        yield f"{_x(place + 1, count):.1f},{y:.1f}"


def _phases(timeline: Timeline) -> Iterator[str]:
    count, start, y = len(timeline.columns), 0, _HEIGHT - _BOTTOM + 6
    for place, (phase, group) in enumerate(groupby(timeline.columns, key=lambda column: column.phase)):
        stop = start + len(list(group))
        left, right = _x(start, count), _x(stop, count)
        shade = "phase odd" if place % 2 else "phase"
        yield f"<rect class='{shade}' x='{left:.1f}' y='{y}' width='{right - left:.1f}' height='22'/>"
        if right - left > 8 * len(phase):
            yield f"<text x='{(left + right) / 2:.1f}' y='{y + 15}' text-anchor='middle'>{escape(phase)}</text>"
        start = stop


def _peak_line(timeline: Timeline) -> str:
    totals = [sum(column.sizes_bytes) for column in timeline.columns]
    if not totals:
        return ""
    x = _x(totals.index(max(totals)) + 0.5, len(totals))
    side, shift = ("end", -6) if x > _WIDTH / 2 else ("start", 6)
    return (
        f"<line class='peak' x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{_HEIGHT - _BOTTOM}'/>"
        f"<text x='{x + shift:.1f}' y='{_TOP - 8}' text-anchor='{side}'>{format_size(max(totals))} held</text>"
    )


def _levels(levels: list[tuple[int, str]], scale: float) -> Iterator[str]:
    """Dashed lines across: the whole of the card's peak, with what is cached and rounded, and what there is."""
    for place, (size, name) in enumerate(levels):
        y = _y(size, scale)
        said = f"{name} {format_size(size)}"
        yield f"<line class='limit {name.split()[0]}' x1='{_LEFT}' x2='{_WIDTH}' y1='{y:.1f}' y2='{y:.1f}'/>"
        # One on the left and one on the right, for they may be close.
        x, side = (_WIDTH - 6, "end") if place else (_LEFT + 6, "start")
        yield f"<text class='ink' x='{x}' y='{y - 5:.1f}' text-anchor='{side}'>{said}</text>"


def _x(place: float, count: int) -> float:
    return _LEFT + (_WIDTH - _LEFT) * place / max(count, 1)


def _y(size_bytes: float, scale: float) -> float:
    return _HEIGHT - _BOTTOM - size_bytes * scale


def _legend(kinds: list[str]) -> str:
    items = "".join(f"<li><i style='background:{_COLOURS[kind]}'></i>{escape(kind)}</li>" for kind in reversed(kinds))
    return f"<ul class='legend'>{items}</ul>"


def _tables(explanation: Explanation) -> str:
    hidden = (*explanation.hidden, *explanation.allocator)
    modules: list[str] = []
    for module in explanation.modules:
        modules.append(_row(escape(module.name), module.size_bytes))
        modules.extend(_row(escape(part.name), part.size_bytes, level=1) for part in module.parts)
    return (
        _table("Tensors by kind", map(_part_row, explanation.kinds), explanation.tensors_bytes)
        + _table("Hidden and allocator", map(_part_row, hidden), sum(part.size_bytes for part in hidden))
        + _table("Tensors by module", modules, explanation.tensors_bytes)
    )


def _part_row(part: Part) -> str:
    name = escape(PART_NAMES.get(part.name, part.name))
    return _row(f"<i style='background:{_COLOURS[part.name]}'></i>{name}", part.size_bytes)


def _row(name: str, size_bytes: int, level: int = 0) -> str:
    return f"<tr><td class='level{level}'>{name}</td><td>{size_bytes / GIB:.3f}</td><td>{size_bytes:,}</td></tr>"


def _table(caption: str, rows: Iterable[str], total_bytes: int) -> str:
    cells, foot = "".join(rows), f"<tfoot>{_row('sum', total_bytes)}</tfoot>"
    return (
        f"<div><div class='wide'><table><caption>{escape(caption)}</caption>"
        f"<thead><tr><th></th><th>GiB</th><th>bytes</th></tr></thead><tbody>{cells}</tbody>{foot}</table></div></div>"
    )


def _data(timeline: Timeline) -> dict[str, object]:
    return {"kinds": timeline.kinds, "left": _LEFT, "width": _WIDTH, "columns": [_moment(c) for c in timeline.columns]}


def _moment(column: Column) -> list[object]:
    return [column.phase, column.operation, column.module, column.sizes_bytes]


_STYLE = """
svg{touch-action:none}.phase{fill:var(--band)}.odd{fill:var(--line)}
line.peak{stroke:var(--ink);stroke-dasharray:4 3}line.budget{stroke:#c62828;stroke-width:2}
.cursor{stroke:var(--ink);visibility:hidden}
.bar{display:flex;height:1.6rem;margin:1rem 0;border-radius:4px;overflow:hidden}
.legend i,td i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px;vertical-align:-.05em}
#moment{min-height:3em;font-variant-numeric:tabular-nums}
.tables{display:flex;flex-wrap:wrap;gap:1rem 3rem;align-items:flex-start;margin-top:1rem}
caption{text-align:left;font-weight:650;padding:.4rem 0}td:first-child{text-align:left}
td.level1{padding-left:1.2rem;color:var(--soft)}tfoot td{font-weight:650;border:0}
"""

_SCRIPT = """
const data=JSON.parse(document.getElementById('data').textContent);
const drawing=document.getElementById('drawing'),cursor=document.getElementById('cursor');
const moment=document.getElementById('moment');
const size=b=>b>=1073741824?(b/1073741824).toFixed(2)+' GiB':(b/1048576).toFixed(1)+' MiB';
drawing.addEventListener('pointermove',event=>{
  const box=drawing.getBoundingClientRect(),x=(event.clientX-box.left)/box.width*data.width;
  const share=(x-data.left)/(data.width-data.left);
  const place=Math.min(data.columns.length-1,Math.max(0,Math.floor(share*data.columns.length)));
  const [phase,operation,module,sizes]=data.columns[place];
  const at=data.left+(place+.5)*(data.width-data.left)/data.columns.length;
  cursor.setAttribute('x1',at);cursor.setAttribute('x2',at);cursor.style.visibility='visible';
  const parts=data.kinds.map((kind,i)=>[kind,sizes[i]]).filter(p=>p[1]).sort((a,b)=>b[1]-a[1]);
  const total=parts.reduce((sum,p)=>sum+p[1],0);
  moment.textContent=size(total)+' held, '+phase+(module?', '+module:'')+', '+operation+': '
    +parts.map(p=>p[0]+' '+size(p[1])).join(', ');
});
drawing.addEventListener('pointerleave',()=>{cursor.style.visibility='hidden'});
"""
