"""`stformer energy`: Eq. 13 of the paper for a model, and what a chip might take."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stformer.cli.common import add_data, add_model, emit, load_data, load_model, note
from stformer.cli.hardware import add_hardware, assumptions_text, load_hardware
from stformer.cli.parser import UsageError
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.cli.common import Data
    from stformer.deploy.chip_energy import Estimate, Load
    from stformer.deploy.energy import Activity, PaperEnergy
    from stformer.deploy.mapping import Mapped
    from stformer.network import Network
    from stformer.trace import Trace

FEW = 256  # samples that are run where nobody says otherwise: rates hardly move beyond
CHUNK_BYTES = 2**28  # spikes that are held at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_hardware(parser)
    add_data(parser)
    parser.add_argument(
        "--trace",
        metavar="TRACE",
        help="take the rates from a trace of `stformer run -o`, and run nothing",
    )


def run(args: argparse.Namespace) -> int:
    if args.trace and (args.data or args.samples):
        raise UsageError("stformer energy: --trace brings its own samples; leave --data out")
    hardware = load_hardware(args)
    network = load_model(args)
    from stformer.deploy.chip_energy import estimates, load_of
    from stformer.deploy.energy import paper_energy
    from stformer.deploy.mapping import map_network

    source, seen = _activity(args, network)
    rates = {name: seen.rate(name) for name in seen.sent}
    paper = paper_energy(network, rates)
    mapped = map_network(network, hardware)
    load = load_of(network, mapped, seen) if hardware.energy is not None else None
    found = list(estimates(load, mapped)) if load is not None else []
    plain = describe(paper, seen, source) | {
        "network": network.name,
        "rates": rates,
        "hardware": hardware.name,
        "chip": _chip(load, found, mapped) if load is not None else None,
    }
    emit(args, plain, _text(plain, paper, found, mapped))
    return 0


def _activity(args: argparse.Namespace, network: Network) -> tuple[str, Activity]:
    from stformer.deploy.energy import activity
    from stformer.trace_file import reading
    from stformer.windows import parts

    if args.trace:
        with reading(args.trace) as file, Progress("reading", file.samples) as bar:
            return args.trace, activity(network, parts(file, bar.of))
    limited = args.samples is None
    if limited:
        args.samples = FEW
    data = load_data(args, network)
    if limited and data.samples == FEW:
        note(f"rates from the first {FEW} samples; --samples N: more")
    return data.source, activity(network, _traces(network, data))


def _traces(network: Network, data: Data) -> Iterator[Trace]:
    """Runs of as many samples as fit a bounded memory, one after the other."""
    from stformer import deploy
    from stformer.network import neurons

    a_sample = network.steps * sum(neurons(p) for p in network.populations)
    chunk = max(1, CHUNK_BYTES // a_sample)
    with Progress(f"cpu: {data.samples} samples") as bar:
        for first in range(0, data.samples, chunk):
            part = {name: a[first : first + chunk] for name, a in data.inputs.items()}
            yield deploy.run("cpu", network, part)
            bar.of(min(first + chunk, data.samples), data.samples)


def describe(paper: PaperEnergy, seen: Activity, source: str) -> dict[str, Any]:
    """Eq. 13 as plain data; energies in joules a sample."""
    from stformer.deploy.energy import E_AC, E_MAC, TERMS

    return {
        "digest": seen.network,
        "data": source,
        "samples": seen.samples,
        "steps": seen.steps,
        "e_mac": E_MAC,
        "e_ac": E_AC,
        "parts": [
            {
                "part": p.part,
                "operations": p.dense,
                "mac": p.mac,
                "ac": p.ac,
                "energy": p.energy,
                "ann": p.ann,
            }
            for p in paper.parts
        ],
        "eq13": {
            "terms": {name: paper.term(name) for name in TERMS},
            "energy": paper.total,
            "without_rates": paper.literal,
            "left_out": paper.rest,
        },
        "ann": {"every_step": paper.ann, "once": paper.ann_once},
    }


def _chip(load: Load, found: list[Estimate], mapped: Mapped) -> dict[str, Any]:
    return {
        "fits": mapped.fits,
        "synops": load.synops,
        "neuron_updates": load.updates,
        "messages": load.messages,
        "hops": load.hops,
        "chips": load.chips,
        "estimates": [
            {
                "name": e.name,
                "about": e.about,
                "dynamic": e.dynamic,
                "static": e.static,
                "total": e.total,
                "step_seconds": e.step,
                "sample_seconds": e.sample,
                "slowest": e.slowest or None,
                "values": [v.plain() for v in e.used],
            }
            for e in found
        ],
    }


def _text(plain: dict[str, Any], paper: PaperEnergy, found: list[Estimate], mapped: Mapped) -> str:
    from stformer.deploy.energy import TERMS
    from stformer.report import table

    term = {part: name for name, parts in TERMS.items() for part in parts}
    rows = [
        [
            *(p.part, term.get(p.part, "not in Eq. 13"), f"{p.dense / 1e6:,.3f}"),
            f"{100 * (p.ac + p.mac) / p.dense:.1f} %",
            *(f"{p.mac / 1e6:,.3f}", f"{p.ac / 1e6:,.3f}", _joules(p.energy), _joules(p.ann)),
        ]
        for p in paper.parts
    ]
    head = ["part", "term", "M operations", "happen", "M MAC", "M AC", "energy", "as an ANN"]
    whole = paper.total + paper.rest
    once = paper.ann_once / whole if whole else float("nan")
    lines = [
        f"network {plain['network']}, {plain['samples']:,} samples of {plain['data']}, "
        f"T = {plain['steps']}; all numbers are of one sample",
        "",
        "Eq. 13 of the paper: 4.6 pJ a MAC where the input is read, 0.9 pJ an AC elsewhere",
        table(head, rows),
        f"Eq. 13: {_joules(paper.total)}; were every spike there: {_joules(paper.literal)}; "
        f"what it leaves out: {_joules(paper.rest)}",
        f"the same network on numbers: {_joules(paper.ann_once)} run once ({once:.1f} times as "
        f"much), {_joules(paper.ann)} run in every step",
    ]
    chip = plain["chip"]
    if chip is None:
        return "\n".join([*lines, "", f"{plain['hardware']} has no energies: no chip estimate"])
    lines += [
        "",
        f"{plain['hardware']}: estimates, nothing was measured; {chip['chips']:,} "
        f"chip{'s' * (chip['chips'] != 1)}, {chip['synops']:,.0f} synops, "
        f"{chip['neuron_updates']:,} neuron updates, {chip['messages']:,.0f} messages, "
        f"{chip['hops']:,.0f} hops",
        table(
            ["estimate", "dynamic", "static", "total", "a step", "a sample", "slowest"],
            [_row(e) for e in found],
        ),
        *(f"{e.name}: {e.about}" for e in found),
    ]
    if not mapped.fits:
        lines.append("the network does not fit (`stformer map` says why): as if it did")
    used = {v.key: v for e in found for v in e.used}
    system = mapped.hardware.system
    if system is not None:
        used |= {v.key: v for v in (system.mesh, system.cores_per_tile)}
    lines += ["", assumptions_text(used.values(), "the chip estimate")]
    return "\n".join(lines)


def _row(e: Estimate) -> list[str]:
    return [
        e.name,
        _joules(sum(e.dynamic.values())),
        _joules(e.static),
        _joules(e.total),
        _scaled(e.step, "s"),
        _scaled(e.sample, "s"),
        e.slowest,
    ]


def _joules(energy: float) -> str:
    return _scaled(energy, "J")


def _scaled(value: float, unit: str) -> str:
    """ "1.45 uJ": three digits with the prefix that fits."""
    for prefix, size in (("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"
