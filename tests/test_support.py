"""Every kind on every backend: exact or refused with a reason; README's table is made here.

`STFORMER_WRITE=1 pytest tests/test_support.py` writes the table into README.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stformer import deploy, interpret
from stformer.network import POPULATIONS, PROJECTIONS, Network
from stformer.testing import SAMPLES, inputs_for, recurrent_network, sample_network
from stformer.trace import Probe
from stformer.verify import compare

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- support matrix: begin -->\n", "<!-- support matrix: end -->\n"
# Networks of any make; `torch` is STFormer's own module.
COLUMNS = ("cpu", "onnx", "lava-sim", "lava-sim-fast")
ROWS = [c.__name__ for c in (*POPULATIONS, *PROJECTIONS)]
STATELESS = ("onnx",)  # give out no u and v


def networks_with(kind: str) -> list[Network]:
    networks = [sample_network(name) for name in SAMPLES]
    found = [
        n for n in networks if kind in {type(o).__name__ for o in (*n.populations, *n.projections)}
    ]
    assert found, f"stformer.testing has no sample with a {kind}"
    return found


def outcome(backend: str, networks: list[Network]) -> str:
    """ "exact", or "refused"; anything else fails."""
    engine = deploy.load(backend)
    states = backend not in STATELESS
    probe = Probe(states=states)
    for network in networks:
        if engine.problems(network):
            return "refused"
        inputs = inputs_for(network, 4, np.random.default_rng(1))
        expected = interpret.run(network, inputs, probe=probe)
        report = compare(
            expected, engine.run(network, inputs, probe=probe), network, states=states
        )
        assert report.proven, report.to_text()
    return "exact"


@pytest.mark.slow
def test_the_table_in_the_readme_is_what_runs() -> None:
    for backend in COLUMNS:
        if reason := deploy.load(backend).missing():
            pytest.skip(f"{backend}: {reason}")
    results: dict[tuple[str, str], str] = {}
    for backend in COLUMNS:
        for name in SAMPLES:
            results[name, backend] = outcome(backend, [sample_network(name)])
    rows = []
    for kind in ROWS:
        cells = [
            # Refused only where no network of the kind runs: one may hold a kind that does not.
            "exact" if "exact" in {results[n.name, b] for n in networks_with(kind)} else "refused"
            for b in COLUMNS
        ]
        rows.append((f"`{kind}`", "defines", *cells))
    recurrent = [outcome(b, [recurrent_network()]) for b in COLUMNS]
    rows.append(("recurrent projection", "defines", *recurrent))
    rows.append(("look-ahead", "defines", *(results["look-ahead", b] for b in COLUMNS)))
    header = ("kind", "reference", *COLUMNS)
    table = "".join(f"| {' | '.join(row)} |\n" for row in (header, ("---",) * len(header), *rows))
    note = (
        "\n*exact*: every spike, u and v equal to the reference (`onnx`, which runs the exported "
        "file: every spike). The `torch`\nbackend is the trained module itself: every variant of "
        "STFormer is compared in `tests/test_lower.py`.\n"
    )
    text = README.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = head + BEGIN + table + note + END + tail
    if os.environ.get("STFORMER_WRITE"):
        README.write_text(wanted, "utf-8")
        return
    assert text == wanted, "run STFORMER_WRITE=1 pytest tests/test_support.py"
