"""Self-contained HTML: no script, nothing loaded, readable on a phone; pictures are inline SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stformer.network import IntArray

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #18794e; --bad: #c62a2f; --ink: #3b5bdb; }
@media (prefers-color-scheme: dark) { :root { --good: #3dd68c; --bad: #ff8589; --ink: #8da4ef; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { border-left: .4rem solid; padding: .4rem .8rem; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
th { font-weight: 600; } tr.off td { color: var(--bad); }
pre { padding: .6rem; border: 1px solid var(--line); font-size: .85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .15rem 1rem; }
dt { opacity: .75; } dd { margin: 0; overflow-wrap: anywhere; }
p { overflow-wrap: anywhere; }
figure { margin: 0 0 1rem; max-width: 100%; }
figcaption { font-size: .85rem; opacity: .8; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-end; }
svg { display: block; max-width: 100%; height: auto; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a browser loads nothing, whatever is in
MOST_NEURONS = 300  # lines of a raster
CLOSE = 40  # lines of one that shows a certain neuron
STEP = 18  # pixels of a time step

Mask = npt.NDArray[np.bool_]


def escape(text: str) -> str:
    """Text of unknown origin: no markup, control, direction or half characters."""
    seen = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return html.escape(seen)


def page(title: str, verdict: str, good: bool, body: Sequence[str]) -> str:
    """A whole page: verdict first."""
    colour = "good" if good else "bad"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="verdict {colour}">{escape(verdict)}</p>\n'
        + "\n".join(body)
        + "</body></html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], off: Sequence[int] = ()
) -> str:
    """A table; the first column is text and stays in view, the others are numbers.

    Args:
        headers, rows: cells; None is a dash, integers get their thousands apart.
        off: indices of the rows that are bad.
    """
    head = "".join(f"<th>{escape(h)}</th>" for h in headers)
    lines = ("".join(f"<td>{escape(_cell(cell))}</td>" for cell in row) for row in rows)
    body = "".join(
        f"<tr{' class=off' if i in off else ''}>{line}</tr>" for i, line in enumerate(lines)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)


def facts(values: Mapping[str, str]) -> str:
    """Labels and texts, which may wrap."""
    lines = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in values.items())
    return f"<dl>{''.join(lines)}</dl>"


def row(figures: Sequence[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'


def image(pixels: IntArray, caption: str) -> str:
    """Magnitudes of integers [H, W] as grey levels, 0 white and the largest ink."""
    height, width = pixels.shape
    levels = np.abs(pixels.astype(np.int64))
    largest = max(int(levels.max()), 1)
    cell = max(2, 224 // max(width, height))
    squares = "".join(
        f'<path d="{_squares(levels == level, cell, cell)}" fill="currentColor" '
        f'fill-opacity="{level / largest:.3f}"/>'
        for level in np.unique(levels)
        if level
    )
    frame = f'<rect width="{width * cell}" height="{height * cell}" fill="none" stroke="#8888"/>'
    return _figure(width * cell, height * cell, squares + frame, caption)


def raster(
    spikes_TN: IntArray,
    caption: str,
    other_TN: IntArray | None = None,
    mark: tuple[int, int] | None = None,
) -> str:
    """Spikes over time: a column a step, a line a neuron, up to `MOST_NEURONS` of them.

    Args:
        spikes_TN: of the reference; what is not 0 is drawn.
        caption: below.
        other_TN: of the other run: equal values are ink, what differs is red, filled where the
            other run sent something, hollow where only the reference did.
        mark: (step, neuron) to ring; the `CLOSE` neurons drawn are those around it.
    """
    steps, neurons = spikes_TN.shape
    shown = min(neurons, CLOSE if mark else MOST_NEURONS)
    at = min(max((mark[1] if mark else 0) - shown // 2, 0), neurons - shown)
    ours = spikes_TN[:, at : at + shown].T
    theirs = ours if other_TN is None else other_TN[:, at : at + shown].T
    height = max(shown * (8 if mark else 1), 24)
    scale = height / max(shown, 1)
    lines = "".join(f"M{t * STEP} 0V{height}" for t in range(steps + 1))
    parts = [f'<path d="{lines}" stroke="#8885"/>']
    for mask, style in (
        ((ours == theirs) & (ours != 0), 'fill="var(--ink)"'),
        ((ours != theirs) & (theirs != 0), 'fill="var(--bad)"'),
        ((ours != theirs) & (theirs == 0), 'fill="none" stroke="var(--bad)"'),
    ):
        if mask.any():
            parts.append(f'<path d="{_squares(mask, STEP, scale)}" {style}/>')
    if mark:
        x, y = (mark[0] + 0.5) * STEP, (mark[1] - at + 0.5) * scale
        parts.append(f'<circle cx="{x:g}" cy="{y:.1f}" r="8" fill="none" stroke="var(--bad)"/>')
    more = f", {shown} of {neurons:,} neurons" if shown < neurons else ""
    return _figure(steps * STEP, height, "".join(parts), caption + more)


def _squares(mask: Mask, width: float, height: float) -> str:
    """Path of a rectangle for each True of [rows, columns]."""
    tall, wide = max(height, 1), width - (2 if width == STEP else 0)
    inset = (width - wide) / 2
    return "".join(
        f"M{x * width + inset:g} {round(y * height, 1):g}h{wide:g}v{tall:g}h-{wide:g}z"
        for y, x in np.argwhere(mask).tolist()
    )


def lines(series: Mapping[str, Sequence[int]], levels: Mapping[str, int], caption: str) -> str:
    """Numbers over time steps: the first series ink, the second red and dashed; levels across.

    Args:
        series: at most two, of one length.
        levels: name -> a value to draw a line at.
        caption: below; the names follow it.
    """
    every = [*(v for values in series.values() for v in values), *levels.values(), 0]
    low, high = min(every), max(every)
    steps = max(len(values) for values in series.values())
    width, height = max(280, 2 * STEP * steps), 120

    def y(value: int) -> float:
        return round(height - 8 - (value - low) / max(high - low, 1) * (height - 16), 1)

    def x(step: int) -> float:
        return round((step + 0.5) * width / steps, 1)

    parts = [
        f'<path d="M0 {y(value):g}H{width}" stroke="currentColor" stroke-dasharray="2 4"/>'
        f'<text x="2" y="{max(y(value) - 3, 9):g}" font-size="10" fill="currentColor">'
        f"{escape(name)} {value:,}</text>"
        for name, value in levels.items()
    ]
    styles = ('stroke="var(--ink)" stroke-width="2"', 'stroke="var(--bad)" stroke-dasharray="6 3"')
    for i, values in enumerate(series.values()):
        points = " ".join(f"{x(t):g},{y(v):g}" for t, v in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" {styles[i]}/>')
        parts += [f'<circle cx="{x(t):g}" cy="{y(v):g}" r="2"/>' for t, v in enumerate(values)]
    return _figure(width, height, "".join(parts), caption)


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
