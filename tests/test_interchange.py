"""Every kind in every format: carried, lowered, refused and why; makes docs/interchange.md.

`STFORMER_WRITE=1 pytest tests/test_interchange.py` writes the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("nir")

from stformer import export
from stformer.errors import Problem
from stformer.export.netx_chains import chains, why_not
from stformer.export.nir_graph import build
from stformer.network import (
    POPULATIONS,
    PROJECTIONS,
    Input,
    Network,
    Population,
    Projection,
)
from stformer.testing import SAMPLES, recurrent_network, sample_network

DOCS = Path(__file__).parent.parent / "docs" / "interchange.md"
BEGIN, END = "<!-- interchange: begin -->\n", "<!-- interchange: end -->\n"

Thing = Population | Projection
Networks = {**{name: sample_network(name) for name in SAMPLES}, "recurrent": recurrent_network()}

# A format carries what it has a word of its own for; all else that it can say is lowered.
OWN = {
    "nir": {
        "Input": {"Input"},
        "Lif": {"CubaLIF"},
        "Dense": {"Linear", "Affine"},
        "Conv": {"Conv2d"},
        "delay": {"Delay"},
        "recurrent projection": {"Delay"},
    },
    "netx": {"Lif": {"CUBA neuron"}, "Input": {"input"}, "Dense": {"dense"}, "Conv": {"conv"}},
    "onnx": {"Input": {"graph input"}, "Conv": {"Conv"}, "Dense": {"Gemm"}},
}


def things(network: Network, kind: str) -> list[Thing]:
    """A network's objects of a kind, or with a feature."""
    match kind:
        case "delay":
            return [q for q in network.projections if q.delay > 0]
        case "look-ahead":
            return [q for q in network.projections if q.delay < 0]
        case "recurrent projection":
            return list(network.recurrent)
        case _:
            every: list[Thing] = [*network.populations, *network.projections]
            return [x for x in every if type(x).__name__ == kind]


def in_nir(network: Network, x: Thing, kind: str) -> set[str]:
    graph = build(network)
    if isinstance(x, Projection):
        own = graph.keys["projections"].get(x.name)
        keys = {k for k in graph.nodes if k == own or k.startswith(f"{x.name}:")}
        if kind in ("delay", "recurrent projection"):
            keys = {f"{x.pre}@{x.delay}:delay"} & set(graph.nodes) or {
                graph.keys["populations"][x.post]
            }
        return {graph.nodes[k]["type"] for k in keys} or {"edge"}
    return {graph.nodes[graph.keys["populations"][x.name]]["type"]}


def in_netx(network: Network, x: Thing, kind: str) -> set[str]:
    if kind in ("delay", "recurrent projection", "look-ahead"):
        return set()
    layers = {layer.population.name: layer for c in chains(network) for layer in c.layers}
    name = x.post if isinstance(x, Projection) else x.name
    if isinstance(x, Input):
        return {"input"}
    if name not in layers:
        return set()
    return {layers[name].kind} if isinstance(x, Projection) else {"CUBA neuron"}


def in_onnx(network: Network, x: Thing, kind: str) -> set[str]:
    import onnx

    with export.exported("onnx", network) as path:
        graph = onnx.load(str(path)).graph
    if isinstance(x, Input):
        return {"graph input"}
    if kind in ("delay", "look-ahead"):
        return {"Slice and Pad"} if {"Slice", "Pad"} & {n.op_type for n in graph.node} else set()
    if kind == "recurrent projection":
        return {n.op_type for n in graph.node if n.name == network.name}
    named = {n.op_type for n in graph.node if n.name == x.name}
    inside = {n.op_type for n in graph.node if n.name.startswith(f"{x.name}/")}
    return named or inside


FORMATS: dict[str, Callable[[Network, Thing, str], set[str]]] = {
    "nir": in_nir,
    "netx": in_netx,
    "onnx": in_onnx,
}


def cell(name: str, kind: str) -> str:
    format_, options = export.load(name), export.Options()
    found: set[str] = set()
    why = ""
    present = False
    for network in Networks.values():
        for x in things(network, kind):
            present = True
            problems = format_.problems(network, options)
            if problems:
                why = why or reason(problems)
            elif words := FORMATS[name](network, x, kind):
                found |= words
            elif name == "netx":
                post = network[x.post] if isinstance(x, Projection) else x
                why = f"stands beside the chains: {why_not(network, post)}"
    assert present, f"stformer.testing has no sample with {kind}"
    if not found:
        return f"refused: {plain(why)}" if "beside" not in why else plain(why)
    carried = found & OWN[name].get(kind, set())
    return f"carried: {', '.join(sorted(carried))}" if carried else f"lowered: {listed(found)}"


def listed(words: set[str]) -> str:
    return ", ".join(sorted(words))


def reason(problems: list[Problem]) -> str:
    return problems[0].why.partition("; ")[0]


def plain(why: str) -> str:
    """Without the names and numbers of a sample network."""
    why = re.sub(r"the delay of \S+ would", "a delay would", why)
    why = re.sub(r"^it looks \d+ steps? ahead", "it looks ahead", why)
    return re.sub(r"\d+ projections lead", "several projections lead", why)


def test_the_table_in_the_docs_is_what_the_formats_do() -> None:
    assert set(FORMATS) == set(export.FORMATS)
    kinds = [c.__name__ for c in (*POPULATIONS, *PROJECTIONS)]
    rows = [
        (f"`{kind}`" if kind in kinds else kind, *(cell(f, kind) for f in FORMATS))
        for kind in (*kinds, "delay", "look-ahead", "recurrent projection")
    ]
    head = ("kind", *FORMATS)
    table = "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))
    text = DOCS.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = before + BEGIN + table + END + after
    if os.environ.get("STFORMER_WRITE"):
        DOCS.write_text(wanted, "utf-8")
        return
    assert text == wanted, "run STFORMER_WRITE=1 pytest tests/test_interchange.py"
