"""Training curves of run folders: loss, learning rate, accuracy, firing rates over epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stformer.errors import InputError
from stformer.parts import PARTS, part_of
from stformer.plot.metrics import Curves, read_metrics
from stformer.plot.rates_picture import SATURATED
from stformer.plot.style import (
    EDGE,
    FAINT,
    LINES,
    PART_COLOURS,
    RULE,
    WARNING,
    WIDTH,
    below,
    make_figure,
    put_axes,
    put_text,
    readable,
    styled,
)

MOST_RUNS = len(LINES)
TALL = 1.75
ACCURACIES = {
    "test_accuracy": ("test", "-"),
    "validation_accuracy": ("validation", "--"),
    "train_accuracy": ("training", ":"),
}

Panel = tuple[str, Callable[[Axes, Sequence[Curves]], None]]


def measure(folders: Sequence[str | Path]) -> list[Curves]:
    """What `curves` draws; arguments and errors as there."""
    if not 1 <= len(folders) <= MOST_RUNS:
        raise InputError("curves", f"{len(folders)} run folders", f"1...{MOST_RUNS}")
    runs = [read_metrics(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if not any(row.numbers or row.rates for row in run.rows):
            raise InputError(f"run folder {folder}", "nothing but epochs", "metrics")
    return runs


def numbers(runs: Sequence[Curves]) -> list[dict[str, object]]:
    """What was drawn, as plain data: each run's last epoch and best accuracy."""
    out: list[dict[str, object]] = []
    for run in runs:
        last = run.rows[-1]
        best = {f"best_{key}": max(ys) for key in ACCURACIES if (ys := run.line(key)[1])}
        out.append(
            {
                "run": run.name,
                "epochs": last.epoch,
                "rows": len(run.rows),
                "last": dict(last.numbers),
                **best,
                "rates": dict(last.rates),
            }
        )
    return out


def curves(*folders: str | Path) -> Figure:
    """Panels over epochs, a colour a run; a panel is left out where no run has its numbers.

    Args:
        folders: of `stformer train`, 1...8.

    Raises:
        InputError: see `stformer.plot.metrics.read_metrics`.
    """
    return draw(measure(folders))


@styled
def draw(runs: Sequence[Curves]) -> Figure:
    """The picture of what `measure` gives."""
    panels = _panels(runs)
    names = _names(runs)
    heading = [
        names[0] if len(runs) == 1 else f"{len(runs)} runs",
        _last_line(runs[0]) if len(runs) == 1 else "",
    ]
    keys = len(runs) > 1
    top = below(heading) + (0.2 * ceil(len(runs) / 4) + 0.06 if keys else 0)
    across = min(len(panels), 2)
    left, right, over, under = 0.5, 0.2, 0.24, 0.42
    pitch = (WIDTH - 2 * EDGE) / 2
    lines = ceil(len(panels) / across)
    tall = over + TALL + under
    figure = make_figure(top + tall * lines + EDGE - 0.05, "Training curves", *heading)
    if keys:
        _run_keys(figure, names, below(heading))
    last = max(run.rows[-1].epoch for run in runs)
    first = min(run.rows[0].epoch for run in runs)
    for i, (title, fill) in enumerate(panels):
        x, y = EDGE + pitch * (i % across), top + tall * (i // across)
        axes = put_axes(figure, x + left, y + over, pitch - left - right, TALL)
        put_text(figure, x + left, y + 0.03, title, weight="bold")
        fill(axes, runs)
        pad = max((last - first) * 0.03, 0.5)
        axes.set_xlim(first - pad, last + pad)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.grid(axis="y", color=RULE, linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    return figure


def _panels(runs: Sequence[Curves]) -> list[Panel]:
    def has(*keys: str) -> bool:
        return any(key in row.numbers for run in runs for row in run.rows for key in keys)

    out: list[Panel] = []
    if has("loss"):
        out.append(("loss (training)", lambda axes, found: _numbers(axes, found, "loss")))
    if has(*ACCURACIES):
        out.append(("accuracy", _accuracy))
    if has("lr"):
        out.append(("learning rate", lambda axes, found: _numbers(axes, found, "lr")))
    if any(row.rates for run in runs for row in run.rows):
        several = len(runs) > 1
        title = "firing rate, median of populations" if several else "firing rates"
        out.append((title, _medians if several else _rates))
    return out


def _line(axes: Axes, xs: Sequence[int], ys: Sequence[float], **more: Any) -> None:
    """A line; points too where they are few, since a single one is no line."""
    axes.plot(xs, ys, **{"marker": "o" if len(xs) <= 12 else "", "markersize": 2.5, **more})


def _numbers(axes: Axes, runs: Sequence[Curves], key: str) -> None:
    for run, colour in zip(runs, LINES, strict=False):
        _line(axes, *run.line(key), color=colour)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g}"))


def _accuracy(axes: Axes, runs: Sequence[Curves]) -> None:
    drawn = [key for key in ACCURACIES if any(run.line(key)[0] for run in runs)]
    for run, colour in zip(runs, LINES, strict=False):
        for key in drawn:
            _line(axes, *run.line(key), color=colour, linestyle=ACCURACIES[key][1])
    axes.set_ylim(top=1.0)
    if axes.get_ylim()[0] < 0.5:
        axes.set_ylim(bottom=0)
    _in_percent(axes)
    axes.legend(
        handles=[
            Line2D([], [], color=FAINT, linestyle=ACCURACIES[key][1], label=ACCURACIES[key][0])
            for key in drawn
        ],
        loc="lower right",
        handlelength=2.2,
    )


def _rates(axes: Axes, runs: Sequence[Curves]) -> None:
    """Every population of the one run, coloured by part."""
    (run,) = runs
    names = run.populations
    for name in names:
        xs, ys = run.rate(name)
        look = {"marker": "o" if len(xs) == 1 else "", "linewidth": 0.8, "alpha": 0.85}
        _line(axes, xs, ys, color=PART_COLOURS[part_of(name)], **look)
    present = {part_of(name) for name in names}
    highest = max(rate for row in run.rows for rate in row.rates.values())
    if highest > SATURATED * 0.8:
        axes.axhline(SATURATED, color=WARNING, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(0, min(max(highest * 1.45, 0.05), 1.3))  # room for the key
    _in_percent(axes)
    axes.legend(
        handles=[
            Line2D([], [], color=PART_COLOURS[part], label=part)
            for part in PARTS
            if part in present
        ],
        loc="upper center",
        ncols=4,
        handlelength=1.0,
        columnspacing=1.0,
        fontsize=6.5,
        borderaxespad=0.1,
    )


def _medians(axes: Axes, runs: Sequence[Curves]) -> None:
    """The median of a run's populations, from lowest to highest in pale."""
    for run, colour in zip(runs, LINES, strict=False):
        rows = [row for row in run.rows if row.rates]
        xs = [row.epoch for row in rows]
        _line(axes, xs, [median(row.rates.values()) for row in rows], color=colour)
        low = [min(row.rates.values()) for row in rows]
        high = [max(row.rates.values()) for row in rows]
        axes.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_ylim(bottom=0)
    _in_percent(axes)


def _in_percent(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{100 * v:.3g} %" if v <= 1 else "")
    )


def _names(runs: Sequence[Curves]) -> list[str]:
    """Names of the runs, numbered where two are the same."""
    names = [readable(run.name, 28) for run in runs]
    return [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]


def _run_keys(figure: Figure, names: Sequence[str], y: float) -> None:
    """Which colour is which run, four in a line."""
    width, height = figure.get_size_inches()
    pitch = (width - 2 * EDGE) / 4
    for i, (name, colour) in enumerate(zip(names, LINES, strict=False)):
        x, at = EDGE + pitch * (i % 4), y + 0.2 * (i // 4)
        line = Line2D(
            [x / width, (x + 0.22) / width],
            [1 - (at + 0.06) / height] * 2,
            color=colour,
            linewidth=1.8,
            transform=figure.transFigure,
        )
        figure.add_artist(line)
        put_text(figure, x + 0.28, at, name, size=7)


def _last_line(run: Curves) -> str:
    last = run.rows[-1]
    parts = [f"{last.epoch} epochs"]
    if "loss" in last.numbers:
        parts.append(f"last loss {last.numbers['loss']:.3f}")
    for key, (name, _) in ACCURACIES.items():
        if key in last.numbers:
            parts.append(f"{name} accuracy {100 * last.numbers[key]:.2f} %")
    return " · ".join(parts)
