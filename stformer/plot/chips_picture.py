"""The chips of a board with populations on their cores."""

from __future__ import annotations

from math import ceil

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stformer.deploy.mapping import Mapped, Place
from stformer.errors import InputError
from stformer.parts import part_of
from stformer.plot.style import (
    EDGE,
    FAINT,
    INK,
    PART_COLOURS,
    RULE,
    WARNING,
    WIDTH,
    bare,
    below,
    make_figure,
    put_axes,
    put_text,
    readable,
    styled,
)

COLUMNS = 16  # cores in a row of a chip
ACROSS = 2  # chips beside each other
MOST_CHIPS = 16
LINE = 0.125  # inches of a line of the key
KEY_COLUMNS = 3
GAP = 0.22


@styled
def chips(found: Mapped) -> Figure:
    """Chips as grids of cores, each core in the colour of its population's part of the model.

    A core is the darker the fuller its scarcest resource is; the number on a population's first
    core leads to its name. Cores have no places that are known: they follow each other in rows.

    Raises:
        InputError: a target without cores.
    """
    system = found.hardware.system
    if system is None:
        raise InputError(f"--hardware {found.hardware.name}", "no cores to draw", "a chip")
    per_chip = system.cores_per_chip_usable.value
    count = max(1, min(found.chips, MOST_CHIPS))
    left_out = found.chips - count
    lines = [
        f"{found.cores:,} of {found.there:,} cores, {found.chips:,} of {system.chips.value:,} "
        f"chips; an estimate, at least {found.least:,} cores"
        + (f"; {left_out:,} chips are not drawn" if left_out else ""),
        "number: a population's first core; dark: its scarcest resource is full; white: free",
    ]
    rows = ceil(per_chip / COLUMNS)
    across = min(ACROSS, count)
    width = (WIDTH - 2 * EDGE - (across - 1) * GAP) / across
    tall = width / COLUMNS * rows
    top = below(lines) + 0.15
    grids = ceil(count / across) * (tall + GAP)
    key = ceil(len(found.places) / KEY_COLUMNS) * LINE
    verdict = "fits" if found.fits else "does not fit"
    figure = make_figure(
        top + grids + key + 2 * EDGE, f"{found.network} {verdict} {found.hardware.name}", *lines
    )
    cores = _cores(found.places)
    for chip in range(count):
        x = EDGE + chip % across * (width + GAP)
        y = top + chip // across * (tall + GAP)
        axes = put_axes(figure, x, y, width, tall)
        _chip(axes, cores[chip * per_chip : (chip + 1) * per_chip], rows, per_chip, width)
        put_text(figure, x, y - 0.02, f"chip {chip}", size=6.5, color=FAINT, va="bottom")
    _key(figure, found.places, top + grids)
    return figure


def _cores(places: tuple[Place, ...]) -> list[tuple[int, Place, bool]]:
    """(number of the population, it, whether this is its first core) for every core in use."""
    return [
        (number, place, core == 0)
        for number, place in enumerate(places, 1)
        for core in range(place.cut.cores or 0)
    ]


def _chip(
    axes: Axes, cores: list[tuple[int, Place, bool]], rows: int, per_chip: int, width: float
) -> None:
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(rows, 0)
    bare(axes, frame=False)
    for i in range(per_chip):
        x, y = i % COLUMNS, i // COLUMNS
        core = cores[i] if i < len(cores) else None
        colour = "white" if core is None else _shade(core[1])
        axes.add_patch(
            Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, facecolor=colour, edgecolor=RULE, lw=0.4)
        )
        if core is not None and core[2]:
            light = sum(to_rgb(colour)) < 1.5
            size = min(6.5, 14 * width / COLUMNS)
            ink = "white" if light else INK
            axes.text(
                x + 0.5, y + 0.52, str(core[0]), size=size, color=ink, ha="center", va="center"
            )


def _shade(place: Place) -> tuple[float, float, float]:
    """The part's colour, paler where there is room left on the core."""
    r, g, b = to_rgb(PART_COLOURS[part_of(place.demand.population)])
    strength = 0.35 + 0.65 * min(1.0, max(place.cut.share))
    return (
        1 - strength * (1 - r),
        1 - strength * (1 - g),
        1 - strength * (1 - b),
    )


def _key(figure: Figure, places: tuple[Place, ...], top: float) -> None:
    rows = ceil(len(places) / KEY_COLUMNS)
    width = (WIDTH - 2 * EDGE) / KEY_COLUMNS
    for i, place in enumerate(places):
        x, y = EDGE + i // rows * width, top + i % rows * LINE
        cores = place.cut.cores
        colour = WARNING if cores is None else INK
        count = "fits on no core" if cores is None else f"{cores:,} core{'s' * (cores != 1)}"
        text = f"{i + 1}  {readable(place.demand.population, 28)}, {count}"
        patch = put_axes(figure, x, y + 0.015, 0.08, 0.08)
        patch.set_facecolor(_shade(place) if cores else "white")
        bare(patch)
        put_text(figure, x + 0.13, y, text, size=6.2, color=colour)
