"""Self-contained HTML: no script, no network, readable on a phone; pictures are inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from stformer.network import IntArray

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #18794e; --bad: #c62a2f; --ink: #3b5bdb; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { border-left: .4rem solid; padding: .4rem .8rem; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid var(--line); font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { opacity: .75; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1rem; } figcaption { font-size: .85rem; opacity: .8; }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-end; }
svg { display: block; max-width: 100%; height: auto; }
"""


def page(title: str, verdict: str, good: bool, body: Sequence[str]) -> str:
    """A whole page: verdict first."""
    colour = "good" if good else "bad"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="verdict {colour}">{escape(verdict)}</p>'
        + "\n".join(body)
        + "</body></html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; the first column is text, the others are numbers."""
    head = "".join(f"<th>{escape(h)}</th>" for h in headers)
    lines = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def facts(values: Mapping[str, str]) -> str:
    """Labels and texts, which may wrap."""
    lines = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items())
    return f"<dl>{''.join(lines)}</dl>"


def row(figures: Sequence[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'


def image(pixels: IntArray, largest: int, caption: str, cell: int = 14) -> str:
    """Grey levels [H, W], 0 white to `largest` ink."""
    height, width = pixels.shape
    squares = "".join(
        f'<rect x="{x * cell}" y="{y * cell}" width="{cell}" height="{cell}" '
        f'fill="currentColor" fill-opacity="{pixels[y, x] / largest:.3f}"/>'
        for y in range(height)
        for x in range(width)
        if pixels[y, x]
    )
    frame = f'<rect width="{width * cell}" height="{height * cell}" fill="none" stroke="#8888"/>'
    return _figure(width * cell, height * cell, squares + frame, caption)


def raster(spikes_TN: IntArray, caption: str, most: int = 300) -> str:
    """Spikes over time: a column a step, a line a neuron; the first `most` neurons."""
    steps, shown = len(spikes_TN), spikes_TN[:, :most]
    cell = 18
    height = max(shown.shape[1], 24)
    scale = height / shown.shape[1]
    marks = "".join(
        f'<rect x="{t * cell + 1}" y="{n * scale:.1f}" width="{cell - 2}" '
        f'height="{max(scale, 1):.1f}" fill="var(--ink)"/>'
        for t, n in np.argwhere(shown)
    )
    lines = "".join(
        f'<line x1="{t * cell}" x2="{t * cell}" y1="0" y2="{height}" stroke="#8885"/>'
        for t in range(steps + 1)
    )
    return _figure(steps * cell, height, lines + marks, caption)


def bars(values: Sequence[float], labels: Sequence[str], marked: int, caption: str) -> str:
    """Horizontal bars around zero, one of them marked."""
    most = max((abs(v) for v in values), default=1) or 1
    line, half = 16, 110
    parts = []
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        length = abs(value) / most * (half - 20)
        x = half if value >= 0 else half - length
        fill = "var(--good)" if i == marked else "#8889"
        parts.append(
            f'<rect x="{x:.1f}" y="{i * line + 2}" width="{length:.1f}" height="{line - 4}" '
            f'fill="{fill}"/><text x="0" y="{i * line + 12}" font-size="11" '
            f'fill="currentColor">{escape(label)}</text>'
        )
    return _figure(2 * half, line * len(values), "".join(parts), caption)


def _figure(width: int, height: int, content: str, caption: str) -> str:
    return (
        f'<figure><svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(caption)}">{content}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
