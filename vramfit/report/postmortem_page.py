"""One self-contained page of a post-mortem: the cause, memory from moment to moment, and how segments are filled."""

from collections.abc import Iterator, Sequence
from html import escape

from vramfit.postmortem.explain import Postmortem, heading
from vramfit.postmortem.kinds import KINDS
from vramfit.postmortem.picture import Instant, SegmentPicture
from vramfit.report.page import page, paragraphs, table
from vramfit.report.postmortem import kinds_table, levers_table, lines_table, remarks
from vramfit.units import GIB, MIB, format_size

_WIDTH, _HEIGHT = 720, 280
_LEFT, _TOP, _BOTTOM = 70, 14, 34
_ROW, _GAP = 13, 3
_MOST_SEGMENTS = 48
_COLOURS = {
    "parameters": "#4e79a7",
    "copy of the network": "#499894",
    "optimizer state": "#59a14f",
    "gradients": "#edc948",
    "activations": "#f28e2b",
    "tensors of the script": "#b07aa1",
    "workspace": "#79706e",
    "unknown": "#a39c95",
}


def postmortem_page(found: Sequence[Postmortem]) -> str:
    """The page as HTML text, each device by itself; it loads nothing from elsewhere."""
    title = "Why memory ran out" if found[0].reason == "oom" else "What held memory"
    sections = [f"<h1>{escape(title)}</h1>"]
    for one in found:
        sections += _device(one, headed=len(found) > 1)
    return page(title, sections, style=_STYLE)


def _device(found: Postmortem, *, headed: bool) -> Iterator[str]:
    if headed:
        yield f"<h2>Device {found.device}</h2>"
    yield f"<p class='lead'>{escape(found.sentence)}</p>"
    yield paragraphs([heading(found), *remarks(found)])
    if found.picture.instants:
        yield "<h2>From moment to moment</h2>"
        caption = "What was asked for and not yet freed, by kind; one step to the right is one stretch of events."
        yield _figure(_course(found.picture.instants, found), caption, found)
    yield "<h2>Segments at that moment</h2>"
    yield _figure(_segments(found.picture.segments), _segments_caption(found), found)
    yield "<h2>What was held</h2>"
    yield table(kinds_table(found))
    yield "<h2>Who made it</h2>"
    yield table(lines_table(found))
    if found.levers:
        yield "<h2>Settings of the allocator</h2>"
        yield table(levers_table(found))


def _figure(drawing: str, caption: str, found: Postmortem) -> str:
    shown = [part.kind for part in found.kinds]
    shown += [
        kind
        for place, kind in enumerate(KINDS)
        if kind not in shown and any(one.sizes_bytes[place] for one in found.picture.instants)
    ]
    items = "".join(f"<li><i style='background:{_COLOURS[kind]}'></i>{escape(kind)}</li>" for kind in shown)
    legend = f"<ul class='legend'>{items}</ul>"
    return f"<figure><div class='wide'>{drawing}</div>{legend}<figcaption>{escape(caption)}</figcaption></figure>"


def _course(instants: Sequence[Instant], found: Postmortem) -> str:
    most = max(found.reserved_bytes, *(sum(one.sizes_bytes) for one in instants), 1)
    scale = (_HEIGHT - _TOP - _BOTTOM) / (1.05 * most)
    drawn = "".join((*_grid(most, scale), *_areas(instants, scale), *_moment(instants, found, scale)))
    return f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='Memory held by kind'>{drawn}</svg>"


def _grid(most: int, scale: float) -> Iterator[str]:
    unit, name = (GIB, "GiB") if most >= GIB else (MIB, "MiB")
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    step = next((one / 10 for one in steps if most / unit / (one / 10) <= 7), 200)
    for tick in range(int(most / unit / step) + 1):
        y = _y(tick * step * unit, scale)
        yield f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH}' y1='{y:.1f}' y2='{y:.1f}'/>"
        yield f"<text x='{_LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{tick * step:g} {name}</text>"


def _areas(instants: Sequence[Instant], scale: float) -> Iterator[str]:
    floor = [0] * len(instants)
    for place, kind in enumerate(KINDS):
        top = [low + one.sizes_bytes[place] for low, one in zip(floor, instants, strict=True)]
        if top != floor:
            outline = " ".join([*_points(top, scale), *reversed(list(_points(floor, scale)))])
            yield f"<polygon fill='{_COLOURS[kind]}' points='{outline}'><title>{kind}</title></polygon>"
        floor = top


def _points(sizes: Sequence[int], scale: float) -> Iterator[str]:
    for place, size in enumerate(sizes):
        y = _y(size, scale)
        yield f"{_x(place, len(sizes)):.1f},{y:.1f}"
        yield f"{_x(place + 1, len(sizes)):.1f},{y:.1f}"


def _moment(instants: Sequence[Instant], found: Postmortem, scale: float) -> Iterator[str]:
    """The moment that is explained, and what was reserved then."""
    y = _y(found.reserved_bytes, scale)
    yield f"<line class='limit' x1='{_LEFT}' x2='{_WIDTH}' y1='{y:.1f}' y2='{y:.1f}'/>"
    yield f"<text x='{_LEFT + 6}' y='{y - 5:.1f}'>{format_size(found.reserved_bytes)} reserved</text>"
    last = instants[-1].position
    place = next((number for number, one in enumerate(instants) if one.position >= found.position), len(instants) - 1)
    x = _x(place + 0.5, len(instants))
    word = {"oom": "refused here", "peak": "the peak", "end": "the end"}[found.reason]
    side, shift = ("end", -6) if x > _WIDTH / 2 else ("start", 6)
    bottom = _HEIGHT - _BOTTOM
    yield f"<line class='limit' x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{bottom}'/>"
    yield f"<text class='ink' x='{x + shift:.1f}' y='{_TOP + 28}' text-anchor='{side}'>{word}</text>"
    yield f"<text x='{_WIDTH}' y='{bottom + 20}' text-anchor='end'>{last} events</text>"


def _segments(segments: Sequence[SegmentPicture]) -> str:
    """A bar for each of the largest segments, as long as it is large."""
    shown = segments[:_MOST_SEGMENTS]
    longest = max((one.size_bytes for one in shown), default=1)
    height = _GAP + max(1, len(shown)) * (_ROW + _GAP)
    bars = "".join(_segment(one, row, longest) for row, one in enumerate(shown))
    return f"<svg viewBox='0 0 {_WIDTH} {height}' role='img' aria-label='Segments and their blocks'>{bars}</svg>"


def _segment(segment: SegmentPicture, row: int, longest: int) -> str:
    y = _GAP + row * (_ROW + _GAP)
    scale = (_WIDTH - _LEFT - 2) / longest
    x = float(_LEFT)
    drawn = [f"<text x='{_LEFT - 8}' y='{y + _ROW - 3}' text-anchor='end'>{format_size(segment.size_bytes)}</text>"]
    for size, kind in segment.pieces:
        width = size * scale
        if kind:
            words = f"{kind}, {format_size(size)}"
            drawn.append(
                f"<rect fill='{_COLOURS[kind]}' x='{x:.2f}' y='{y}' width='{width:.2f}' height='{_ROW}'>"
                f"<title>{words}</title></rect>"
            )
        x += width
    whole = segment.size_bytes * scale
    drawn.append(f"<rect class='frame' x='{_LEFT}' y='{y}' width='{whole:.2f}' height='{_ROW}'/>")
    return "".join(drawn)


def _segments_caption(found: Postmortem) -> str:
    count, total = len(found.picture.segments), format_size(found.reserved_bytes)
    shown = f"The {_MOST_SEGMENTS} largest of {count} segments" if count > _MOST_SEGMENTS else f"All {count} segments"
    return (
        f"{shown} of {total}, as long as each is large; what is empty is free, in pieces of at most "
        f"{format_size(found.largest_free_bytes)}."
    )


def _x(place: float, count: int) -> float:
    return _LEFT + (_WIDTH - _LEFT) * place / max(count, 1)


def _y(size_bytes: float, scale: float) -> float:
    return _HEIGHT - _BOTTOM - size_bytes * scale


_STYLE = """
.wide svg{min-width:34rem;max-width:52rem}
.frame{fill:none;stroke:var(--soft)}.legend i{width:.8em;height:.8em;border-radius:2px;vertical-align:-.05em}
"""
