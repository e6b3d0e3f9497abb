"""What every page shares: one file that loads nothing from elsewhere, legible in light, in dark and in print."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from rich.table import Table

# A range behind its figure, which on paper may stand below it, but in one line.
_RANGE = re.compile(r"\([^()]*\)$|\S+ to \S+$")
_LONG = 30  # characters in a cell, from which it is broken into lines


def page(title: str, sections: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole page of HTML sections; `style` and `script` are added to what all pages have."""
    body = "\n".join(sections)
    scripts = f"{script}<script type='module'>{_SAVE}</script>"
    return _PAGE.format(title=escape(title), body=body, style=_STYLE + style, script=scripts)


def table(drawn: Table, *, numbered: bool = False) -> str:
    """A table as the terminal shows it, rows in bold marked; `numbered` puts 1, 2, ... before its rows."""
    words = [column.justify == "left" for column in drawn.columns]
    marked = [row.style == "bold" for row in drawn.rows]
    rows = [list(map(str, row)) for row in zip(*(column.cells for column in drawn.columns), strict=True)]
    header = [str(column.header) for column in drawn.columns]
    if numbered:
        words, header = [True, *words], ["", *header]
        rows = [[str(number), *row] for number, row in enumerate(rows, 1)]
    lines = (_row("td", row, words, bold) for row, bold in zip(rows, marked, strict=True))
    head = f"<thead>{_row('th', header, words)}</thead>"
    return f"<div class='wide'><table>{head}<tbody>{''.join(lines)}</tbody></table></div>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they stand for, as a list of definitions."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(said)}</dd>' for name, said in pairs)}</dl>"


def paragraphs(sentences: Iterable[str]) -> str:
    """One paragraph a sentence."""
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def legend(names: Iterable[tuple[str, str]]) -> str:
    """Which class of marks stands for what: (class, words)."""
    items = (f"<li><i class='{mark}'></i>{escape(words)}</li>" for mark, words in names)
    return f"<ul class='legend'>{''.join(items)}</ul>"


def figure(drawing: str, caption: str, names: Iterable[tuple[str, str]] = ()) -> str:
    """A drawing with its legend, and what it shows, in words."""
    return f"<figure>{drawing}{legend(names)}<figcaption>{escape(caption)}</figcaption></figure>"


def _row(tag: str, cells: Sequence[str], words: Sequence[bool], marked: bool = False) -> str:
    inner = "".join(_cell(tag, cell, is_word) for cell, is_word in zip(cells, words, strict=True))
    return f"<tr{' class=marked' if marked else ''}>{inner}</tr>"


def _cell(tag: str, text: str, is_word: bool) -> str:
    kind = " class='word long'" if is_word and len(text) > _LONG else " class=word" if is_word else ""
    written = escape(text) if is_word else _RANGE.sub(r"<span class=range>\g<0></span>", escape(text))
    return f"<{tag}{kind}>{written}</{tag}>"


_STYLE = """
:root,:root.paper{--ink:#1b1b1b;--soft:#5c5c5c;--line:#dadada;--back:#fff;--band:#f3f3f1;
--first:#1f5f99;--second:#b5541c;--third:#6b7f2a;--fourth:#8a8a8a}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;
--ink:#ebebeb;--soft:#a6a6a6;--line:#3a3a3a;--back:#151515;--band:#212121;
--first:#6fb0ea;--second:#ee9a62;--third:#b3c766;--fourth:#8f8f8f}}
*{box-sizing:border-box}
body{margin:2.5rem auto;max-width:78rem;padding:0 1.25rem;font:15px/1.55 system-ui,"Segoe UI",Arial,sans-serif}
body{color:var(--ink);background:var(--back);overflow-wrap:break-word}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .3rem;font-weight:650}
h2{font-size:1.1rem;margin:2.6rem 0 .5rem;padding-top:.7rem;border-top:1px solid var(--line);font-weight:650}
p{margin:.35rem 0;max-width:46rem}.lead{font-size:1.05rem}figcaption,dt{color:var(--soft)}
figure{margin:0;min-width:0}figcaption{font-size:.87rem;margin-top:.3rem;max-width:46rem}
svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,"Segoe UI",Helvetica,Arial,sans-serif;fill:var(--soft)}svg text.ink{fill:var(--ink)}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.pair{gap:1.6rem 2.4rem;align-items:start}
.trio{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:1.4rem 2rem}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums;line-height:1.4}
th{font-weight:500;color:var(--soft);vertical-align:bottom;border-bottom:1px solid var(--soft)}
td,th{padding:.2rem 0 .2rem .95rem;text-align:right;white-space:nowrap}
td{border-bottom:1px solid var(--line)}th{white-space:pre}
td.word,th.word{text-align:left}td.long{white-space:normal;min-width:17rem}td:first-child,th:first-child{padding-left:0}
.marked td{font-weight:650}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.2rem 1.4rem;margin:.6rem 0;max-width:58rem}
dd{margin:0;min-width:0;overflow-wrap:anywhere}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.2rem;list-style:none;margin:.3rem 0;padding:0;font-size:.87rem}
.legend:empty{display:none}.legend i.area{height:.75em;vertical-align:-.05em;opacity:.3}
.legend i{display:inline-block;width:1.1em;height:.22em;margin-right:.45em;vertical-align:.22em;background:currentColor}
.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}.area{fill:currentColor;opacity:.16;stroke:none}
.dot{fill:currentColor;stroke:var(--back);stroke-width:1}.ring{fill:var(--back);stroke:currentColor;stroke-width:2}
.first{color:var(--first)}.second{color:var(--second)}.third{color:var(--third)}.fourth{color:var(--fourth)}
.limit{stroke:var(--ink);stroke-dasharray:5 3}
@media print{body{margin:0;max-width:none;font-size:10.5pt}h2{break-after:avoid}.wide{overflow:visible}
figure,tr,.tiles{break-inside:avoid}table{font-size:8pt}td,th{padding-left:.45rem;white-space:pre-line}
td.long{min-width:9rem}.range{white-space:nowrap}.pair{grid-template-columns:1fr 1fr}
.trio{grid-template-columns:1fr 1fr 1fr}}
@page{margin:16mm}
.save{font:inherit;font-size:.8rem;color:var(--soft);background:none;border:1px solid var(--line);border-radius:4px;
padding:.05rem .5rem;margin:.2rem .4rem .2rem 0;cursor:pointer}
@media(max-width:560px){body{margin:1.2rem auto;padding:0 .8rem}svg text{font-size:14px}
dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}.scrolls svg{min-width:46rem}.scrolls svg text{font-size:13px}}
.scrolls{overflow-x:auto}
.wide,.scrolls{background:linear-gradient(90deg,transparent,var(--back) 70%) 100% 0/40px 100% no-repeat local,
radial-gradient(farthest-side at 100% 50%,rgba(128,128,128,.5),transparent) 100% 0/14px 100% no-repeat scroll}
@media print{.save{display:none}.scrolls{overflow:visible}.wide,.scrolls{background:none}}
"""

# Every drawing can be kept as SVG, in the colours of paper and with its style beside each mark, which drawing programs
# need; every table as CSV.
_SAVE = """
(()=>{
const LOOKS=['fill','fill-opacity','stroke','stroke-width','stroke-opacity','stroke-dasharray','stroke-linejoin',
  'opacity','visibility','paint-order','font-family','font-size','font-weight','text-anchor'];
const name=document.title.replace(/[^\\w.-]+/g,'_');
const save=(text,type,file)=>{
  const link=document.createElement('a');
  link.href=URL.createObjectURL(new Blob([text],{type}));link.download=file;link.click();
  setTimeout(()=>URL.revokeObjectURL(link.href),1000);
};
const button=(words,place,act)=>{
  const made=document.createElement('button');
  made.className='save';made.textContent=words;made.type='button';made.onclick=act;
  (place.closest('.scrolls,.wide')||place).after(made);
};
document.querySelectorAll('svg').forEach((drawing,i)=>button('SVG',drawing,()=>{
  const copy=drawing.cloneNode(true),all=root=>[root,...root.querySelectorAll('*')],box=drawing.viewBox.baseVal;
  document.documentElement.classList.add('paper');
  const looks=all(drawing).map(one=>{
    const style=getComputedStyle(one);
    return LOOKS.map(name=>name+':'+style.getPropertyValue(name)).join(';');
  });
  document.documentElement.classList.remove('paper');
  all(copy).forEach((one,place)=>one.setAttribute('style',looks[place]));
  copy.setAttribute('width',box.width);copy.setAttribute('height',box.height);
  save(new XMLSerializer().serializeToString(copy),'image/svg+xml',name+'-'+(i+1)+'.svg');
}));
const cell=one=>'"'+one.textContent.replace(/\\s+/g,' ').trim().replace(/"/g,'""')+'"';
document.querySelectorAll('table').forEach((table,i)=>button('CSV',table,()=>save(
  [...table.rows].map(row=>[...row.cells].map(cell).join(',')).join('\\r\\n'),'text/csv',name+'-'+(i+1)+'.csv')));
})();
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
{body}
{script}</body>
</html>
"""
