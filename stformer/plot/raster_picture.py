"""Spike rasters of one sample: which neuron sent when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stformer.errors import InputError
from stformer.parts import part_of
from stformer.plot.recording import (
    Recording,
    chosen,
    describe_sample,
    inputs_of,
    is_graded,
    plain_sample,
    sends,
    spiking,
)
from stformer.plot.style import (
    EDGE,
    FAINT,
    PART_COLOURS,
    RULE,
    WIDTH,
    below,
    make_figure,
    percent,
    put_axes,
    put_text,
    readable,
    styled,
)

MOST_NEURONS = 64  # rows of one population
MOST_PANELS = 60
TALL = 1.15  # inches of a panel
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """One population in one sample.

    Attributes:
        population: its name.
        neurons: how many it has.
        shown: flat indices of those drawn, see `evenly`.
        values: [len(shown), T], what they sent.
        rate: share of all neurons and steps that sent something.
        graded: it sends numbers.
    """

    population: str
    neurons: int
    shown: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    rate: float
    graded: bool


def measure(
    recording: Recording, *, sample: int = 0, populations: Sequence[str] = ()
) -> list[Panel]:
    """What `raster` draws; arguments and errors as there."""
    names = chosen(recording, populations)
    if not names:
        left_out = {*inputs_of(recording)}
        names = [n for n in spiking(recording) if n not in left_out]
    if not names:
        raise InputError(f"network {recording.name}", "no population that spikes", "at least one")
    if len(names) > MOST_PANELS:
        raise InputError(
            f"network {recording.name}",
            f"{len(names)} populations",
            f"up to {MOST_PANELS} in a picture",
            "choose some with --populations",
        )
    return [_panel(recording, name, sample) for name in names]


def _panel(recording: Recording, name: str, sample: int) -> Panel:
    values = recording.one(name, sample)
    neurons = prod(values.shape[1:])
    flat = values.reshape(len(values), neurons).T.astype(np.int64)
    shown = evenly(neurons, MOST_NEURONS)
    return Panel(
        population=name,
        neurons=neurons,
        shown=shown,
        values=flat[shown],
        rate=float(sends(values).mean()),
        graded=is_graded(recording, name),
    )


def evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Up to `most` of 0...count - 1: all where they are fewer, else one of each equal part.

    Places within the parts follow the golden ratio: equal steps would fall on the same few
    tokens of every channel.
    """
    if count <= most:
        return np.arange(count, dtype=np.int64)
    edges = np.arange(most + 1, dtype=np.int64) * count // most
    within = (np.arange(most) * GOLDEN) % 1.0
    shown: npt.NDArray[np.int64] = edges[:-1] + (within * np.diff(edges)).astype(np.int64)
    return shown


def numbers(panels: Sequence[Panel], recording: Recording, sample: int) -> dict[str, object]:
    """What was drawn, as plain data."""
    return {
        **plain_sample(recording, sample),
        "populations": [
            {
                "name": p.population,
                "neurons": p.neurons,
                "shown": len(p.shown),
                "graded": p.graded,
                "rate": p.rate,
            }
            for p in panels
        ],
    }


def raster(recording: Recording, *, sample: int = 0, populations: Sequence[str] = ()) -> Figure:
    """A panel a population: neurons over time steps, filled where one sent something.

    Args:
        recording: what ran.
        sample: number of the sample in the data.
        populations: names; by default all but inputs, relays and readouts.

    Raises:
        InputError: no such sample or population, more than 60 populations.
    """
    return draw(measure(recording, sample=sample, populations=populations), recording, sample)


@styled
def draw(panels: Sequence[Panel], recording: Recording, sample: int) -> Figure:
    """The picture of what `measure` gives."""
    steps = recording.trace.steps
    across = 5 if steps <= 16 else 3 if steps <= 64 else 1
    across = min(across, max(len(panels), 2))
    graded = [p.population for p in panels if p.graded]
    fewer = any(len(p.shown) < p.neurons for p in panels)
    heading = [
        f"{recording.name} · {describe_sample(recording, sample)}",
        "A row is a neuron, a column a time step of its population; filled: a spike."
        + (f" Of more than {MOST_NEURONS} neurons, one of each equal part." if fewer else ""),
        f"Numbers, the darker the larger: {', '.join(graded)}." if graded else "",
    ]
    left, right, over, under = 0.17, 0.12, 0.29, 0.33
    pitch = (WIDTH - 2 * EDGE) / across
    wide = min(pitch - left - right, 2.2 if across == 2 else pitch)
    top = below(heading)
    tall = over + TALL + under
    lines = ceil(len(panels) / across)
    figure = make_figure(top + tall * lines + EDGE, "Spike raster", *heading)
    for i, p in enumerate(panels):
        x, y = EDGE + pitch * (i % across), top + tall * (i // across)
        letters = int((pitch - 0.04) / 0.056)
        put_text(figure, x + left, y, _short(p.population, letters), size=7)
        put_text(figure, x + left, y + 0.13, _fact(p), size=6.5, color=FAINT)
        axes = put_axes(figure, x + left, y + over, wide, TALL)
        _draw_panel(axes, p, steps)
        if i + across >= len(panels):
            axes.set_xlabel("time step", size=6.5)
    return figure


def _draw_panel(axes: Axes, p: Panel, steps: int) -> None:
    colour = PART_COLOURS[part_of(p.population)]
    ramp = LinearSegmentedColormap.from_list("part", ["#ffffff", colour])
    size = np.abs(p.values)
    extent = (-0.5, steps - 0.5, len(p.shown) - 0.5, -0.5)
    axes.imshow(
        size,
        cmap=ramp,
        vmin=0,
        vmax=max(int(size.max()), 1),
        aspect="auto",
        interpolation="nearest",
        extent=extent,
    )
    if steps <= 32:  # narrow white lines tell the steps of a neuron that always sends apart
        axes.set_xticks(np.arange(0.5, steps - 1), minor=True)
        axes.grid(which="minor", axis="x", color="white", linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_yticks([])
    axes.set_ylabel(_axis_text(p), size=6, labelpad=2)
    axes.tick_params(axis="x", pad=1.5, labelsize=6)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_edgecolor(RULE)


def _axis_text(p: Panel) -> str:
    whole = len(p.shown) == p.neurons
    return f"{p.neurons:,} neurons" if whole else f"{len(p.shown)} of {p.neurons:,} neurons"


def _fact(p: Panel) -> str:
    if p.graded:
        return f"{p.values.min():,}…{p.values.max():,}"
    return percent(p.rate) if p.rate else "silent"


def _short(name: str, letters: int) -> str:
    """The end of a long name tells more than its beginning."""
    text = readable(name, 200)
    return text if len(text) <= letters else f"…{text[-letters + 1 :]}"
