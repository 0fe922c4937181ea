"""What attention lets pass: the gates of each block, and where the mixed output fires."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stformer.errors import InputError
from stformer.plot.frames import Picture, draw_map, draw_picture, is_image, picture_of
from stformer.plot.recording import (
    Recording,
    describe_sample,
    inputs_of,
    is_graded,
    plain_sample,
    sends,
)
from stformer.plot.style import (
    EDGE,
    FAINT,
    MEANS,
    PART_COLOURS,
    RULE,
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

GATE = re.compile(r"(.+)\.gate$")
MOST_BLOCKS = 24
MOST_HEADS = 16
SIDE = 1.3  # inches of a map
DISC = "#e69f00"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """One block's attention in one sample.

    Attributes:
        name: of the attention, as "blocks.0.attention".
        gate: [T, C], open or not, of gates that are one a channel; else [heads, H, W], rates
            over time of gates that are one a head and token.
        per_token: which of the two.
        open: share of gates and steps that are open.
        mix: [H, W], the mixed output's rate over time and channels.
        graded: populations that send numbers.
    """

    name: str
    gate: Picture
    per_token: bool
    open: float
    mix: Picture
    graded: tuple[str, ...]


def measure(recording: Recording, *, sample: int = 0) -> list[Block]:
    """What `gates` draws; arguments and errors as there."""
    there = recording.trace.populations
    names = [m[1] for name in there if (m := GATE.match(name)) and f"{m[1]}.mix" in there]
    if not names:
        raise InputError(
            f"network {recording.name}",
            "no populations 'blocks.N.attention.gate' and '.mix'",
            "an STFormer with attention 'gated' or 'qk'",
            "`stformer info` lists what there is",
        )
    if len(names) > MOST_BLOCKS:
        raise InputError(
            f"network {recording.name}", f"{len(names)} blocks", f"up to {MOST_BLOCKS}"
        )
    return [_block(recording, name, sample) for name in names]


def _block(recording: Recording, name: str, sample: int) -> Block:
    gate = sends(recording.one(f"{name}.gate", sample))
    mix = sends(recording.one(f"{name}.mix", sample))
    if mix.ndim != 4:
        raise InputError(f"population '{name}.mix'", f"shape {mix.shape[1:]}", "(C, H, W)")
    per_token = is_image(gate.shape[1:])
    if per_token and gate.shape[1] > MOST_HEADS:
        raise InputError(f"population '{name}.gate'", f"{gate.shape[1]} heads", f"to {MOST_HEADS}")
    populations = (f"{name}.gate", f"{name}.mix")
    return Block(
        name=name,
        gate=gate.mean(axis=0) if per_token else gate.reshape(len(gate), -1).astype(np.float64),
        per_token=per_token,
        open=float(gate.mean()),
        mix=mix.mean(axis=(0, 1)),
        graded=tuple(p for p in populations if is_graded(recording, p)),
    )


def numbers(blocks: Sequence[Block], recording: Recording, sample: int) -> dict[str, object]:
    """What was drawn, as plain data."""
    return {
        **plain_sample(recording, sample),
        "blocks": [
            {
                "attention": b.name,
                "gates": "per head and token" if b.per_token else "per channel",
                "open": b.open,
                "graded": list(b.graded),
                "mix": b.mix.tolist(),
            }
            for b in blocks
        ],
    }


def gates(recording: Recording, *, sample: int = 0) -> Figure:
    """A row a block: its gates, the mixed output a token, and the same over the input.

    Args:
        recording: what ran.
        sample: number of the sample in the data.

    Raises:
        InputError: no such sample, no attention gates, an input that is no image.
    """
    return draw(measure(recording, sample=sample), recording, sample)


@styled
def draw(blocks: Sequence[Block], recording: Recording, sample: int) -> Figure:
    """The picture of what `measure` gives."""
    images = [n for n in inputs_of(recording) if is_image(recording.trace[n].shape[2:])]
    picture = picture_of(recording.one(images[0], sample))[0] if len(images) == 1 else None
    graded = [name for b in blocks for name in b.graded]
    heading = [
        f"{recording.name} · {describe_sample(recording, sample)}",
        "Left: gates, filled or darker where open. Right: firing rate of the mixed output "
        "by token"
        + ("; discs over the input: the same, as area." if picture is not None else "."),
        f"Open means not 0 for {', '.join(graded)}, which are graded." if graded else "",
    ]
    top = below(heading) + 0.02
    pitch = SIDE + 0.62
    high = max(float(b.mix.max()) for b in blocks)
    figure = make_figure(top + pitch * len(blocks) + 0.12 + EDGE, "Attention gates", *heading)
    gap = 0.16
    last = WIDTH - EDGE - SIDE
    mix = last - gap - SIDE if picture is not None else last
    for i, b in enumerate(blocks):
        y = top + pitch * i
        put_text(figure, EDGE, y, readable(b.name), weight="bold")
        put_text(figure, EDGE, y + 0.15, _gate_text(b), size=6.5, color=FAINT)
        put_text(
            figure, mix, y + 0.15, f"mix, {percent(float(b.mix.mean()))}", size=6.5, color=FAINT
        )
        room = mix - 0.3 - EDGE
        (_draw_heads if b.per_token else _draw_channels)(figure, b, y + 0.29, room)
        draw_map(put_axes(figure, mix, y + 0.29, SIDE, SIDE), b.mix, MEANS, high)
        if picture is not None:
            put_text(figure, last, y + 0.15, "mix over input", size=6.5, color=FAINT)
            _overlay(figure, picture, b.mix, high, last, y + 0.29)
    y = top + pitch * len(blocks) - 0.2
    put_scale(figure, mix, y, SIDE, MEANS, percent(high), "mix")
    if any(b.per_token for b in blocks):
        put_scale(figure, EDGE, y, SIDE, SINGLE, "100 %", "gate")
    return figure


def _gate_text(b: Block) -> str:
    if b.per_token:
        return f"{len(b.gate)} heads, a gate a token: {percent(b.open)} open"
    ever = int(b.gate.any(axis=0).sum())
    channels = b.gate.shape[1]
    return f"{channels} channels, a gate each: {percent(b.open)} open, {ever} of them at some step"


def _draw_channels(figure: Figure, b: Block, y: float, room: float) -> None:
    """Channels from left to right, time steps from top to bottom."""
    steps = len(b.gate)
    left = 0.34
    tall = min(max(0.2 * steps, 0.4), SIDE - 0.45)
    axes = put_axes(figure, EDGE + left, y, room - left, tall)
    ramp = LinearSegmentedColormap.from_list("gate", ["#ffffff", PART_COLOURS["attention"]])
    axes.imshow(b.gate, cmap=ramp, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if steps <= 12:
        axes.set_yticks(np.arange(0.5, steps - 1), minor=True)
        axes.grid(which="minor", axis="y", color=RULE, linewidth=0.4)
        axes.tick_params(which="minor", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.tick_params(labelsize=6, pad=1.5)
    axes.set_xlabel("channel", size=6.5)
    axes.set_ylabel("time step", size=6.5)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_edgecolor(RULE)


def _draw_heads(figure: Figure, b: Block, y: float, room: float) -> None:
    """A map a head, up to eight in a line."""
    heads = len(b.gate)
    across = heads if heads <= 4 else ceil(heads / 2)
    lines = ceil(heads / across)
    side = min((room - 0.08 * (across - 1)) / across, (SIDE - 0.2 * (lines - 1) - 0.14) / lines)
    for head, values in enumerate(b.gate):
        x = EDGE + (side + 0.08) * (head % across)
        at = y + (side + 0.2) * (head // across)
        draw_map(put_axes(figure, x, at, side, side), values, SINGLE, 1)
        put_text(figure, x, at + side + 0.02, f"head {head}", size=6, color=FAINT)


def _overlay(
    figure: Figure, picture: Picture, mix: Picture, high: float, x: float, y: float
) -> None:
    """A disc a token over the input, its area the rate; it reads on dark and bright frames."""
    axes = put_axes(figure, x, y, SIDE, SIDE)
    height, width = mix.shape
    draw_picture(axes, picture, extent=(0, width, height, 0))
    rows, columns = np.nonzero(mix)
    largest = (72 * 0.62 * SIDE / max(height, width)) ** 2  # in points, as scatter counts
    areas = largest * mix[rows, columns] / (high or 1)
    axes.scatter(columns + 0.5, rows + 0.5, s=areas, c=DISC, edgecolors="black", linewidths=0.5)
