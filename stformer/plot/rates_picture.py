"""Firing rates of all populations, with those that say nothing or too much marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stformer.errors import InputError
from stformer.parts import PARTS, part_of
from stformer.plot.recording import (
    Recording,
    inputs_of,
    is_graded,
    readouts,
    relays,
    sends,
    spiking,
)
from stformer.plot.style import (
    EDGE,
    FAINT,
    INK,
    PART_COLOURS,
    RULE,
    WARNING,
    WIDTH,
    below,
    make_figure,
    percent,
    put_axes,
    readable,
    styled,
)

DEAD = 0.001  # below: information hardly passes, nor does a surrogate gradient
SATURATED = 0.6  # above: neither speech nor sparseness
LINE = 0.165  # inches of a bar
MOST_BARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A population's activity.

    Attributes:
        population: its name.
        neurons: how many it has.
        rate: spikes per neuron and step; of graded values the share that is not 0.
        silent: share of neurons that never sent anything.
        graded, input: it sends numbers; it is the host's side.
    """

    population: str
    neurons: int
    rate: float
    silent: float
    graded: bool
    input: bool

    @property
    def verdict(self) -> str:
        """ "dead", "saturated" or nothing; inputs are as they are, numbers may all be used."""
        if self.input:
            return ""
        if self.rate < DEAD:
            return "dead"
        return "saturated" if self.rate > SATURATED and not self.graded else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Rates of a network over all samples that ran.

    Attributes:
        name, digest, data: of the network; what the samples are.
        samples, steps: how many.
        rates: in the network's order.
        left_out: relays and readouts.
    """

    name: str
    digest: str
    data: str
    samples: int
    steps: int
    rates: tuple[Rate, ...]
    left_out: int


def measure(recordings: Iterable[Recording]) -> Activity:
    """What `rates` draws: rates over several recordings of one network, taken one at a time."""
    first: Recording | None = None
    sent: dict[str, int] = {}
    ever: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = {}
    samples = 0
    for r in recordings:
        first = first or r
        if r.trace.network != first.trace.network:
            raise InputError("rates", f"{first.name} and {r.name}", "recordings of one network")
        for name in spiking(r):
            values = sends(r.trace[name])
            sent[name] = sent.get(name, 0) + int(values.sum())
            ever[name] = ever.get(name, np.False_) | values.any(axis=(0, 1))
        samples += r.trace.samples
    if first is None or not sent:
        raise InputError("rates", "no population that spikes", "at least one")
    if len(sent) > MOST_BARS:
        raise InputError(first.name, f"{len(sent):,} populations", f"up to {MOST_BARS:,}")
    steps = first.trace.steps
    return Activity(
        name=first.name,
        digest=first.trace.network,
        data=first.data,
        samples=samples,
        steps=steps,
        rates=tuple(
            Rate(
                population=name,
                neurons=ever[name].size,
                rate=count / (samples * steps * ever[name].size),
                silent=float(1 - ever[name].mean()),
                graded=is_graded(first, name),
                input=name in inputs_of(first),
            )
            for name, count in sent.items()
        ),
        left_out=len(relays(first)) + len(readouts(first)),
    )


def numbers(activity: Activity) -> dict[str, object]:
    """What was drawn, as plain data."""
    return {
        "network": activity.name,
        "digest": activity.digest,
        "data": activity.data,
        "samples": activity.samples,
        "steps": activity.steps,
        "populations": [
            {
                "name": r.population,
                "part": part_of(r.population),
                "neurons": r.neurons,
                "graded": r.graded,
                "rate": r.rate,
                "silent": r.silent,
                "verdict": r.verdict or None,
            }
            for r in activity.rates
        ],
    }


def rates(*recordings: Recording) -> Figure:
    """A bar a population: spikes per neuron and time step.

    Args:
        recordings: of one network; their samples are put together.

    Raises:
        InputError: nothing that spikes, recordings of several networks.
    """
    return draw(measure(recordings))


@styled
def draw(activity: Activity) -> Figure:
    """The picture of what `measure` gives."""
    found = activity.rates
    plural = "sample" if activity.samples == 1 else "samples"
    of = f" of {activity.data}" if activity.data else ""
    heading = [
        f"{activity.name} · {activity.samples:,} {plural}{of} · {activity.steps} steps",
        "Spikes per neuron and time step; hatched: share of graded values that are not 0."
        if any(r.graded for r in found)
        else "Spikes per neuron and time step.",
        f"Relays and readouts ({activity.left_out}) left out." if activity.left_out else "",
    ]
    heading = [heading[0], " ".join(line for line in heading[1:] if line)]
    left = EDGE + min(max(len(readable(r.population)) for r in found) * 0.062 + 0.1, 2.6)
    right = 1.15
    parts = [p for p in PARTS if p in {part_of(r.population) for r in found}]
    top = below(heading)
    height = LINE * len(found) + 0.12
    figure = make_figure(top + height + 0.42 + EDGE, "Firing rates", *heading)
    axes = put_axes(figure, left, top, WIDTH - left - right - EDGE, height)
    end = min(max(SATURATED * 1.08, max(r.rate for r in found) * 1.15), 1.12)
    for y, r in enumerate(found):
        colour = PART_COLOURS[part_of(r.population)]
        (bar,) = axes.barh(y, r.rate, height=0.72, color=colour)
        if r.graded:
            bar.set(facecolor="white", edgecolor=colour, hatch="/////", linewidth=0.8)
        alarm = WARNING if r.verdict else INK
        text = f" {percent(r.rate)}" + (f"  {r.verdict}" if r.verdict else "")
        axes.text(r.rate, y, text, va="center", size=6.5, color=alarm, clip_on=False)
    axes.axvline(SATURATED, color=WARNING, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(0, end), ylim=(len(found) - 0.4, -0.6), xlabel="firing rate")
    axes.set_yticks(range(len(found)), [readable(r.population) for r in found])
    axes.tick_params(axis="y", length=0)
    for label, r in zip(axes.get_yticklabels(), found, strict=True):
        label.set_color(WARNING if r.verdict else INK)
    ticks = [t / 100 for t in range(0, 101, 10 if end < 0.85 else 20) if t / 100 <= end]
    axes.set_xticks(ticks, [f"{100 * t:.0f} %" for t in ticks])
    axes.grid(axis="x", color=RULE, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    axes.text(
        SATURATED, -0.6, "60 %: saturated ", size=6.5, color=WARNING, ha="right", va="bottom"
    )
    axes.legend(
        handles=[Patch(color=PART_COLOURS[part], label=part) for part in parts],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        handlelength=1.0,
        handleheight=1.0,
        borderaxespad=0.2,
        labelcolor=FAINT,
    )
    return figure
