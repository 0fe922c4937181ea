"""Spike maps before and after each Spatial Block: the paper's Fig. 2, from a real run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from stformer.errors import InputError
from stformer.network import Conv, IntArray
from stformer.plot.frames import Picture, draw_map, draw_picture, is_image, picture_of
from stformer.plot.recording import (
    Recording,
    answer,
    chosen,
    describe_sample,
    inputs_of,
    is_graded,
    plain_sample,
    relays,
    sends,
)
from stformer.plot.style import (
    EDGE,
    FAINT,
    MEANS,
    SINGLE,
    WIDTH,
    below,
    make_figure,
    percent,
    put_axes,
    put_scale,
    put_text,
    readable,
    styled,
)

STAGES = re.compile(r"stem$|spatial\.layers\.\d+$")
MOST_CHANNELS = 8
MOST_COLUMNS = 8
MOST_ROWS = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One population's maps of one sample.

    Attributes:
        population: its name.
        shape: (C, H, W).
        graded: it sends numbers; rates are then shares of values that are not 0.
        mean: [H, W], rate over time and channels.
        channels: those drawn one by one.
        maps: [len(channels), H, W], rate over time.
    """

    population: str
    shape: tuple[int, ...]
    graded: bool
    mean: Picture
    channels: tuple[int, ...]
    maps: Picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One network: the input picture, what it shows, and its stages."""

    recording: Recording
    picture: Picture
    shows: str
    stages: tuple[Stage, ...]


def measure(
    recordings: Sequence[Recording],
    *,
    sample: int = 0,
    channels: int = 1,
    populations: Sequence[str] = (),
) -> list[Row]:
    """What `features` draws; arguments and errors as there."""
    if not 1 <= len(recordings) <= MOST_ROWS:
        raise InputError("features", f"{len(recordings)} recordings", f"1...{MOST_ROWS}")
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError("channels", str(channels), f"1...{MOST_CHANNELS}")
    rows = [_row(r, sample, channels, populations) for r in recordings]
    columns = [[s.population for s in row.stages] for row in rows]
    for row, names in zip(rows, columns, strict=True):
        if names != columns[0]:
            raise InputError(
                f"network {row.recording.name}",
                f"stages {', '.join(names)}",
                f"those of {rows[0].recording.name}: {', '.join(columns[0])}",
                "name populations that all of them have",
            )
    return rows


def _row(r: Recording, sample: int, channels: int, populations: Sequence[str]) -> Row:
    names = chosen(r, populations) or _stages(r)
    if len(names) > MOST_COLUMNS:
        raise InputError(f"network {r.name}", f"{len(names)} stages", f"up to {MOST_COLUMNS}")
    inputs = [name for name in inputs_of(r) if is_image(r.trace[name].shape[2:])]
    if len(inputs) != 1:
        raise InputError(f"network {r.name}", f"{len(inputs)} inputs that are images", "one")
    picture, shows = picture_of(r.one(inputs[0], sample))
    return Row(
        recording=r,
        picture=picture,
        shows=shows,
        stages=tuple(_stage(r, name, sample, channels) for name in names),
    )


def _stages(r: Recording) -> list[str]:
    out = {*relays(r)}
    names = [n for n in r.trace.populations if STAGES.match(n) and n not in out]
    if not names:
        raise InputError(
            f"network {r.name}",
            "no population 'stem' or 'spatial.layers.N'",
            "an STFormer, or names of populations that are maps",
        )
    return names


def _stage(r: Recording, name: str, sample: int, channels: int) -> Stage:
    values = r.one(name, sample)
    shape = tuple(int(n) for n in values.shape[1:])
    if not is_image(shape):
        raise InputError(f"population '{name}'", f"shape {shape}", "maps (C, H, W)")
    rates = sends(values).mean(axis=0)
    order = telling(values)[:channels]
    return Stage(
        population=name,
        shape=shape,
        graded=is_graded(r, name),
        mean=rates.mean(axis=0),
        channels=tuple(int(c) for c in order),
        maps=rates[order],
    )


def telling(values: IntArray) -> npt.NDArray[np.int64]:
    """Channels of [T, C, H, W] by contrast of their map, largest first; ties by number."""
    rates = sends(values).mean(axis=0)
    contrast = rates.reshape(len(rates), -1).var(axis=1)
    order: npt.NDArray[np.int64] = np.argsort(-contrast, kind="stable")
    return order


def kernel_of(recording: Recording) -> str:
    """ "5 × 5", the kernel of the first Spatial Block; empty where it is not known."""
    network = recording.network
    if network is None or "spatial.layers.0" not in network:
        return ""
    sizes = {
        p.weight.shape[2:] for p in network.incoming("spatial.layers.0") if isinstance(p, Conv)
    }
    return " × ".join(map(str, *sizes)) if len(sizes) == 1 else ""


def numbers(rows: Sequence[Row], sample: int) -> list[dict[str, object]]:
    """What was drawn, as plain data."""
    return [
        {
            **plain_sample(row.recording, sample),
            "kernel": kernel_of(row.recording) or None,
            "stages": [
                {
                    "population": s.population,
                    "shape": list(s.shape),
                    "graded": s.graded,
                    "rate": float(s.mean.mean()),
                    "largest": float(s.mean.max()),
                    "channels": list(s.channels),
                }
                for s in row.stages
            ],
        }
        for row in rows
    ]


def features(
    *recordings: Recording, sample: int = 0, channels: int = 1, populations: Sequence[str] = ()
) -> Figure:
    """Spike maps of one sample, a row a network, a column a stage.

    Args:
        recordings: one a row; networks with kernels of other sizes compare well.
        sample: number of the sample in the data.
        channels: single channels to draw, 1...8: those whose maps have the most contrast.
        populations: the stages; by default the stem and every Spatial Block.

    Raises:
        InputError: no such sample, population or stage; stages that differ between networks.
    """
    return draw(
        measure(recordings, sample=sample, channels=channels, populations=populations), sample
    )


@styled
def draw(rows: Sequence[Row], sample: int) -> Figure:
    """The picture of what `measure` gives."""
    first = rows[0].recording
    graded = [s.population for s in rows[0].stages if s.graded]
    most = max(len(s.channels) for row in rows for s in row.stages)  # a stage may have fewer
    heading = [
        (f"{first.name} · " if len(rows) == 1 else "")
        + (describe_sample(first, sample) if len(rows) == 1 else _shared(rows, sample)),
        "Blue: firing rate over time and channels, one scale a column. Orange: rate of "
        + ("the channel" if most == 1 else "the channels")
        + " with the most contrast.",
        f"Share of values that are not 0 for {', '.join(graded)}, which are graded."
        if graded
        else "",
    ]
    stages = rows[0].stages
    left = EDGE + 0.95
    gap = 0.14
    cell = min(1.3, (WIDTH - left - EDGE - gap * len(stages)) / (len(stages) + 1))
    lines = 1 + most
    pitch = cell + 0.17
    block = lines * pitch + 0.12
    top = below(heading) + 0.48  # of the first map
    figure = make_figure(
        top + block * len(rows) + 0.06 + EDGE, "Spike maps through the Spatial Core", *heading
    )
    highs = [max(float(row.stages[i].mean.max()) for row in rows) for i in range(len(stages))]
    xs = [left + (cell + gap) * i for i in range(len(stages) + 1)]
    put_text(figure, xs[0], top - 0.46, "input", weight="bold")
    put_text(figure, xs[0], top - 0.32, rows[0].shows, size=6.5, color=FAINT)
    for i, (x, s) in enumerate(zip(xs[1:], stages, strict=True)):
        alike = len({row.stages[i].shape for row in rows}) == 1
        shape = " × ".join(map(str, s.shape)) if alike else "shapes differ"
        size = 7.5 if len(s.population) * 0.068 < cell else 6
        put_text(figure, x, top - 0.46, readable(s.population, 26), weight="bold", size=size)
        put_text(figure, x, top - 0.32, shape, size=6.5, color=FAINT)
    for n, row in enumerate(rows):
        y = top + block * n
        _label(figure, row, y, sample, alone=len(rows) == 1)
        draw_picture(put_axes(figure, xs[0], y, cell, cell), row.picture)
        for x, s, high in zip(xs[1:], row.stages, highs, strict=True):
            draw_map(put_axes(figure, x, y, cell, cell), s.mean, MEANS, high)
            whole = f"all channels, {percent(float(s.mean.mean()))}"
            put_text(figure, x, y - 0.125, whole, size=6.5, color=FAINT)
            for i, (channel, values) in enumerate(zip(s.channels, s.maps, strict=True), 1):
                at = y + pitch * i
                draw_map(put_axes(figure, x, at, cell, cell), values, SINGLE, 1)
                put_text(figure, x, at - 0.125, f"channel {channel}", size=6.5, color=FAINT)
    y = top + block * len(rows) - 0.2
    put_scale(figure, xs[0], y, cell, SINGLE, "100 %", "channel")
    for x, high in zip(xs[1:], highs, strict=True):
        put_scale(figure, x, y, cell, MEANS, percent(high), "mean")
    return figure


def _label(figure: Figure, row: Row, y: float, sample: int, *, alone: bool) -> None:
    r = row.recording
    kernel = kernel_of(r)
    lines = [] if alone else answer(r, sample).split(", ")
    size = 7.5 if len(r.name) <= 13 else 6.2
    put_text(figure, EDGE, y, readable(r.name, 15), weight="bold", size=size)
    for i, line in enumerate([f"kernel {kernel}" if kernel else "", *lines]):
        put_text(figure, EDGE, y + 0.15 + 0.13 * i, line, color=FAINT, size=7)


def _shared(rows: Sequence[Row], sample: int) -> str:
    data = {row.recording.data for row in rows}
    return f"sample {sample}" + (f" of {data.pop()}" if len(data) == 1 and "" not in data else "")
