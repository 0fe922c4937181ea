"""One look for all pictures, places in inches, and files that are the same each time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any, ParamSpec, TypeVar

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from stformer.errors import InputError
from stformer.files import write_bytes

WIDTH = 7.2  # inches: two columns of a journal
DOTS = 220  # an inch, of a PNG
EDGE = 0.12  # inches kept free around everything
INK, FAINT, RULE = "#1a1a1a", "#5f6368", "#b8bcc2"
WARNING = "#b2182b"

# Okabe and Ito's colours, which people with any colour vision tell apart.
PART_COLOURS = {
    "input": "#999999",
    "stem": "#56b4e9",
    "spatial": "#0072b2",
    "rpe": "#009e73",
    "temporal": "#e69f00",
    "attention": "#d55e00",
    "MLP": "#cc79a7",
    "residual": "#4d4d4d",
    "head": "#1a1a1a",
    "other": "#8c6d4f",
}
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d", "#8c6d4f")


# Lightness falls evenly, so that a print in grey tells the same.
MEANS = LinearSegmentedColormap.from_list("means", ["#f7f9fc", "#9cc4e4", "#3182bd", "#08264f"])
SINGLE = LinearSegmentedColormap.from_list("single", ["#fcf8f3", "#f5b580", "#d55e00", "#591f00"])

SHEET: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it: the same letters everywhere
    "font.size": 7.5,
    "text.color": INK,
    "text.parse_math": False,  # a name may have a $
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 3,
    "axes.labelpad": 2.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "hatch.linewidth": 0.6,
    "savefig.dpi": DOTS,
    "figure.dpi": DOTS,
    "svg.hashsalt": "stformer",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

# What a writer would put in of itself and of today's date, taken out.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(METADATA)

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def sheet() -> Iterator[None]:
    """Our style and nothing of the user's own; drawing and saving both happen inside."""
    with style.context(["default", SHEET]), warnings.catch_warnings():
        # A name in letters that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorator: draw inside `sheet`."""
    from functools import wraps

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with sheet():
            return draw(*args, **kwargs)

    return inside


def check_format(path: str | Path) -> str:
    """The format that a file's ending names; InputError with those there are."""
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        found = f"ending '.{ending}'" if ending else "no ending"
        raise InputError(str(path), found, ", ".join(f".{f}" for f in FORMATS))
    return ending


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure of this package, whole or not at all; the ending decides the format.

    Raises:
        InputError: an ending that is none of FORMATS, a place that cannot be written.
    """
    ending = check_format(path)
    buffer = io.BytesIO()
    with sheet():
        figure.savefig(buffer, format=ending, metadata=METADATA[ending])
    write_bytes(path, buffer.getvalue())


def make_figure(height: float, title: str, *lines: str, width: float = WIDTH) -> Figure:
    """A figure of this size in inches with a heading; what follows starts at `below(lines)`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    top = EDGE
    put_text(figure, EDGE, top, readable(title, 90), size=9.5, weight="bold")
    for i, line in enumerate(wrapped(lines, width)):
        put_text(figure, EDGE, top + 0.2 + 0.135 * i, line, color=FAINT)
    return figure


def below(lines: Sequence[str], width: float = WIDTH) -> float:
    """Inches from the top that a heading with these lines takes."""
    return EDGE + 0.3 + 0.135 * len(wrapped(lines, width))


def wrapped(lines: Sequence[str], width: float) -> list[str]:
    """Lines that fit the width at the sheet's size, 19 letters an inch."""
    room = int((width - 2 * EDGE) * 19)
    return [part for line in lines if line for part in wrap(readable(line, 600), room)]


def put_text(figure: Figure, x: float, y: float, text: str, **more: Any) -> Any:
    """Text whose upper left corner is x, y inches from the figure's."""
    width, height = figure.get_size_inches()
    place = {"ha": "left", "va": "top", **more}
    return figure.text(x / width, 1 - y / height, text, **place)


def put_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at x, y inches from the upper left corner."""
    total, tall = figure.get_size_inches()
    return figure.add_axes((x / total, 1 - (y + height) / tall, width / total, height / tall))


def put_scale(
    figure: Figure, x: float, y: float, width: float, colours: Any, high: str, label: str
) -> None:
    """A colour scale from 0 with its ends written under it."""
    axes = put_axes(figure, x, y, width, 0.06)
    axes.imshow([[i / 63 for i in range(64)]], cmap=colours, aspect="auto", vmin=0, vmax=1)
    bare(axes)
    put_text(figure, x, y + 0.08, "0", size=6.5)
    put_text(figure, x + width, y + 0.08, high, size=6.5, ha="right")
    put_text(figure, x + width / 2, y + 0.08, label, size=6.5, ha="center", color=FAINT)


def bare(axes: Axes, *, frame: bool = True) -> None:
    """No ticks; a thin frame or none."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame)
        spine.set_linewidth(0.5)
        spine.set_edgecolor(RULE)


def percent(rate: float) -> str:
    """ "12 %", "1.2 %", "0.03 %", "0"."""
    value = 100 * rate
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01 %"
    return (
        f"{value:.0f} %"
        if value >= 9.95
        else f"{value:.1f} %"
        if value >= 0.095
        else f"{value:.2f} %"
    )


def readable(text: str, most: int = 48) -> str:
    """A file's text as one that can be drawn: no control characters, not endless."""
    safe = "".join(c if c.isprintable() else "?" for c in text)
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"
