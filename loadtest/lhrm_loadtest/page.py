"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from .grids import Grid
from .plots import Plot

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
th { border-bottom: 2px solid #999; } .wide { overflow-x: auto; }
.warning { border-left: .3rem solid #d1792b; padding-left: .7rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; } figcaption, li { color: #555; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; } pre { overflow-x: auto; background: #f5f5f5; padding: .7rem; }
"""


def page(
    title: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[Grid],
    plots: Sequence[Plot],
    notes: Sequence[str],
    line: str,
    warnings: Sequence[str] = (),
) -> str:
    """Return the page; plots are inside it as data URIs."""
    told = [f"<p class=warning>{escape(warning)}</p>" for warning in warnings]
    body = [
        f"<h1>{escape(title)}</h1>",
        *told,
        *map(_table, tables[:2]),
        *map(_figure, plots),
        *map(_table, tables[2:]),
    ]
    body += ["<h2>How to read this</h2>", f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"]
    if facts:
        terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
        body += ["<h2>How it was made</h2>", f"<dl>{terms}</dl>"]
    body.append(f"<pre>{escape(line)}</pre>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.png).decode("ascii")
    caption = escape(plot.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in grid.head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in grid.body)
    return (
        f"<h2>{escape(grid.title)}</h2><div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
