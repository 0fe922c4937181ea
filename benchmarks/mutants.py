"""The verifier against seeded faults: how many it detects, classifies and locates.

`python benchmarks/mutants.py` seeds every fault of `stformer.testing_faults` into the sample
networks, a recurrent one, one at the edges of 24 bits, and the packaged model; compares each with
the definition, from spikes alone and with recorded states; and prints a table by fault.
Every fault that changes a spike must be detected, or the program fails.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stformer import data, interpret, storage
from stformer.files import write_text
from stformer.network import Network
from stformer.testing import SAMPLES, inputs_for, recurrent_network, sample_network
from stformer.testing_faults import Fault, extreme_network, faults, judge
from stformer.trace import Inputs, Probe

STATES = Probe(states=True)
COLUMNS = ("made", "changes a spike", "detected", "population", "class", "named", "with states")


def networks(samples: int) -> Iterator[tuple[Network, Inputs, int]]:
    """(network, inputs, faults to take of each kind; 0 for all)."""
    for name in SAMPLES:
        yield _with_inputs(sample_network(name), samples)
    yield _with_inputs(recurrent_network(), samples)
    yield _with_inputs(extreme_network(), samples)
    yield storage.load(), data.packaged()[0][:samples], 4


def _with_inputs(network: Network, samples: int) -> tuple[Network, Inputs, int]:
    return network, inputs_for(network, samples, np.random.default_rng(1)), 0


def measure(network: Network, inputs: Inputs, few: int) -> Iterator[dict[str, Any]]:
    """A row for each fault of a network, or for a few of each kind."""
    reference = interpret.run(network, inputs, probe=STATES)
    bare = replace(reference, u={}, v={})
    made: dict[str, list[Fault]] = {}
    for fault in faults(network, seed=1):
        made.setdefault(fault.name, []).append(fault)
    for group in made.values():
        chosen = random.Random(1).sample(group, few) if 0 < few < len(group) else group
        for fault in chosen:
            trace = fault.run(inputs, STATES)
            seen = judge(network, bare, replace(trace, u={}, v={}))
            known = judge(network, reference, trace)
            yield {
                "network": network.name,
                "fault": fault.name,
                "where": fault.where,
                "class": fault.kind,
                "changes": seen.changes,
                "detected": seen.found == seen.changes and known.found == seen.changes,
                "population": seen.where == fault.where and seen.alone,
                "given": seen.kind,
                "named": sorted(seen.named),
                "given with states": known.kind,
                "named with states": sorted(known.named),
                "detail": known.detail,
            }


def table(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """[fault, class, numbers of `COLUMNS`]; all but the first count those that change a spike."""
    out: list[list[Any]] = []
    for name, kind in dict.fromkeys((r["fault"], r["class"]) for r in rows):
        mine = [r for r in rows if r["fault"] == name]
        out.append([name, kind, *_counts(mine)])
    return [*out, ["all", "", *_counts(rows)]]


def _counts(rows: list[dict[str, Any]]) -> list[int]:
    changing = [r for r in rows if r["changes"]]
    return [
        len(rows),
        len(changing),
        sum(r["detected"] for r in changing),
        sum(r["population"] for r in changing),
        sum(r["given"] == r["class"] for r in changing),
        sum(r["class"] in r["named"] for r in changing),
        sum(r["given with states"] == r["class"] for r in changing),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("benchmarks/results/mutants.json")
    )
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for network, inputs, few in networks(args.samples):
        found = list(measure(network, inputs, few))
        rows += found
        print(f"{network.name}: {len(found)} faults", file=sys.stderr, flush=True)
    counted = table(rows)
    head = ["fault", "class", *COLUMNS]
    for line in (head, ["---"] * len(head), *counted):
        print(f"| {' | '.join(map(str, line))} |")
    others = [r for r in rows if r["changes"] and r["given with states"] != r["class"]]
    plain = {
        "samples": args.samples,
        "networks": dict(Counter(r["network"] for r in rows)),
        "table": [dict(zip(head, line, strict=True)) for line in counted],
        "given another class with states": others,
    }
    write_text(args.output, json.dumps(plain, indent=1) + "\n")
    missed = [r for r in rows if not r["detected"]]
    assert not missed, f"not detected: {missed}"
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
