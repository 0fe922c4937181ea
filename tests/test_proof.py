"""The report: one page that loads nothing, its JSON twin, and the schema of the twin."""

from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import html, proof, storage
from stformer.errors import InputError
from stformer.network import Lif, Network
from stformer.page import proof_page
from stformer.proof import Proof, observed, twin, write_report
from stformer.testing_cli import Call, fake_backend
from stformer.testing_traces import changed, make, make_trace
from stformer.trace import Trace, predicted
from stformer.verify import compare

SCHEMA = json.loads(storage.PACKAGED.with_name("report.schema.json").read_text("utf-8"))
EMPTY = {"meta", "path", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Every element that is opened is closed; texts and attributes by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.elements)


def matches(value: Any, schema: dict[str, Any]) -> bool:
    """As much of JSON Schema as report.schema.json uses; an unknown word is an error."""
    words = set(schema) - {"$schema", "$defs", "title", "description"}
    if "$ref" in words:
        return matches(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    types = {
        "object": dict, "array": list, "string": str, "boolean": bool,
        "integer": int, "number": (int, float), "null": type(None),
    }  # fmt: skip
    tests = {
        "type": lambda s: any(
            isinstance(value, types[t]) and (t == "boolean" or not isinstance(value, bool))
            for t in ([s] if isinstance(s, str) else s)
        ),
        "const": lambda s: value == s,
        "minimum": lambda s: value is None or value >= s,
        "pattern": lambda s: re.search(s, value) is not None,
        "items": lambda s: all(matches(item, s) for item in value),
        "oneOf": lambda s: sum(matches(value, option) for option in s) == 1,
        "required": lambda s: set(s) <= set(value),
        "properties": lambda s: all(matches(value[k], s[k]) for k in s if k in value),
        "additionalProperties": lambda s: all(
            k in schema.get("properties", {}) or (s is not False and matches(v, s))
            for k, v in value.items()
        ),
    }
    order = sorted(words, key=list(tests).index)  # the type first: the others rely on it
    return all(tests[word](schema[word]) for word in order)


def proof_of(
    network: Network | None, reference: Trace, *others: Trace, states: bool = True
) -> Proof:
    comparisons = (
        observed(compare(reference, other, network, states=states), reference, other, network)
        for other in others
    )
    return Proof(
        comparisons=tuple(comparisons), network=network, data="d", command="c --x", facts={}
    )


@pytest.fixture
def broken(attention: tuple[Network, Trace]) -> tuple[Network, Trace, Trace, str]:
    """A trace, and another with one wrong spike in sample 1, step 1, neuron 0 of a Lif."""
    network, trace = attention
    name = next(p.name for p in network.populations if isinstance(p, Lif) and p.latency == 1)
    at = (1, 1, *(0 for _ in network[name].shape))
    return network, trace, replace(changed(trace, name, at), backend="bad"), name


# --- the page ----------------------------------------------------------------------------------


def test_a_page_of_equal_runs(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    made = proof_of(network, trace, replace(trace, backend="one"), replace(trace, backend="two"))
    text = proof_page(made)
    page = Page(text)
    (verdict,) = [d for t, d in page.elements if t == "p" and "verdict" in (d.get("class") or "")]
    assert verdict["class"] == "verdict good"
    assert text.index("verdict good") < text.index("What was compared")
    assert "one, two against reference" in text
    assert f"{sum(r.compared + r.states_compared for r in made.reports):,} values" in text
    spiking = [n for n in trace.populations if trace[n].dtype == np.uint8]
    assert set(trace.populations) <= set(page.texts["td"])
    assert page.count("svg") >= len(spiking)
    for told in (trace.network, trace.inputs, "numpy", "Python", "c --x"):
        assert told in text
    assert "one: differ" in page.texts["th"]


def test_a_page_loads_nothing_and_fits_a_phone(attention: tuple[Network, Trace]) -> None:
    text = proof_page(proof_of(*attention, attention[1]))
    page = Page(text)
    used = {attribute for _, attributes in page.elements for attribute in attributes}
    assert not used & {"src", "href", "srcset", "action", "onload", "onclick"}
    assert not {"script", "link", "iframe", "img", "object"} & {t for t, _ in page.elements}
    assert not re.search(r"https?:|url\(|@import|//", text)
    metas = [d for t, d in page.elements if t == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert any("default-src 'none'" in (d.get("content") or "") for d in metas)
    # Tables scroll inside their box, the page does not.
    tables = [i for i, (t, _) in enumerate(page.elements) if t == "table"]
    assert all(page.elements[i - 1] == ("div", {"class": "wide"}) for i in tables)
    assert ".wide { overflow-x: auto; }" in text


def test_the_first_difference_is_drawn(broken: tuple[Network, Trace, Trace, str]) -> None:
    network, trace, other, name = broken
    made = proof_of(network, trace, other)
    (comparison,) = made.comparisons
    assert comparison.sample == 1
    np.testing.assert_array_equal(comparison.reference[name][0], trace[name][1])
    assert set(comparison.other.v) == {name}
    text = proof_page(made)
    page = Page(text)
    assert 'class="verdict bad"' in text
    assert text.index("Not proven") < text.index("Where bad first differs")
    assert f"Population {name}, sample 1, step 1, neuron 0" in text
    first = made.reports[0].first
    assert first is not None
    assert f"Class: {first.kind}" in text
    assert "filled where bad sent something and hollow where only reference did" in text
    rings = [d for t, d in page.elements if t == "circle" and d.get("r") == "8"]
    assert [(d["cx"], d["cy"]) for d in rings] == [("27", "4.0")]  # step 1, neuron 0
    assert page.count("polyline") == 2  # v of both
    assert f"threshold {64 * network[name].vth:,}" in text  # type: ignore[union-attr]
    assert "its own" in page.texts["td"]
    assert ("tr", {"class": "off"}) in page.elements
    assert f"It fires above {network[name].vth} &lt;&lt; 6" in text  # type: ignore[union-attr]
    # Without the network and states it is still located and drawn.
    bare = proof_page(proof_of(None, replace(trace, u={}, v={}), other, states=False))
    assert "two traces: are the spikes equal?" in bare
    assert f"Population {name}, sample 1, step 1, neuron 0" in bare
    assert Page(bare).count("polyline") == 0


def test_a_raster_shows_who_sent_what() -> None:
    ours = np.zeros((3, 1000), np.uint8)
    theirs = ours.copy()
    ours[0, 900] = theirs[0, 900] = 1  # both
    ours[1, 901] = 1
    theirs[2, 902] = 1
    drawn = html.raster(ours, "x", theirs, mark=(1, 901))
    found = re.findall(r'<path d="([^"]*)" (fill[^/]*)/>', drawn)
    assert {style: d.split("h")[0] for d, style in found} == {
        'fill="var(--ink)"': "M1 152",
        'fill="var(--bad)"': "M37 168",
        'fill="none" stroke="var(--bad)"': "M19 160",
    }
    assert "40 of 1,000 neurons" in drawn
    assert "300 of 1,000 neurons" in html.raster(ours, "x")


def test_texts_of_files_cannot_become_markup(attention: tuple[Network, Trace]) -> None:
    _, trace = attention
    evil = "<script>alert(1)</script>\x1b[2J\u202e\ud800\"'"
    first = trace.populations[1]
    renamed = replace(
        trace,
        backend=evil,
        spikes={evil if k == first else k: a for k, a in trace.spikes.items()},
        u={},
        v={},
    )
    made = replace(proof_of(None, renamed, renamed, states=False), data=evil)
    text = proof_page(made)
    assert "<script" not in text
    assert not {"\x1b", "\u202e", "\ud800"} & set(text)
    assert "\\x1b[2J\\u202e\\ud800" in text
    text.encode()
    Page(text)
    json.dumps(made.to_json()).encode()


def test_accuracy_is_told_where_labels_are() -> None:
    network, trace = make(), make_trace()
    classes = predicted(network, trace)
    assert classes is not None
    labels = classes.copy()
    labels[0] += 1
    report = compare(trace, trace, network)
    seen = observed(report, trace, replace(trace, backend="b"), network, labels)
    assert seen.correct == (4, 4)
    assert seen.label == labels[0]
    made = Proof(comparisons=(seen,), network=network, data="", command="", facts={"a": "b"})
    assert "80.00 %, 4 right" in proof_page(made)
    assert made.to_json()["reports"][0]["correct"] == {"reference": 4, "other": 4}
    assert observed(report, trace, trace, network).correct is None


def test_nothing_compared_is_not_proven() -> None:
    made = Proof(comparisons=(), network=None, data="", command="", facts={})
    assert not made.proven
    assert 'class="verdict bad"' in proof_page(made)


def test_notes_of_a_report_are_shown(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    made = proof_of(network, trace, replace(trace, info={"note 1": "mind <this>"}))
    assert "mind &lt;this&gt;" in proof_page(made)
    assert made.to_json()["reports"][0]["notes"] == ("mind <this>",)


# --- the twin ----------------------------------------------------------------------------------


def test_the_twin_is_as_its_schema_says(broken: tuple[Network, Trace, Trace, str]) -> None:
    network, trace, other, _ = broken
    for made in (
        proof_of(network, trace, other, trace),
        proof_of(None, replace(trace, u={}, v={}), other, states=False),
        Proof(comparisons=(), network=None, data="", command="", facts={}),
    ):
        plain = json.loads(json.dumps(made.to_json(), allow_nan=False))
        assert matches(plain, SCHEMA)
    plain = json.loads(json.dumps(proof_of(network, trace, other).to_json()))
    # And the check checks: what is missing, new or of another type anywhere is found.
    for path in (
        ["proven"], ["reports", 0, "compared"], ["reports", 0, "populations", 0, "rate"],
        ["reports", 0, "first", "kind"], ["reports", 0, "first", "other", "value"],
    ):  # fmt: skip
        for change in ("gone", "new", "type"):
            wrong = copy.deepcopy(plain)
            *parents, key = path
            holder = wrong
            for parent in parents:
                holder = holder[parent]
            match change:
                case "gone":
                    del holder[key]
                case "new":
                    holder[f"{key}2"] = holder[key]
                case _:
                    holder[key] = [holder[key]]
            assert not matches(wrong, SCHEMA), (path, change)


# --- the command -------------------------------------------------------------------------------


def test_verify_writes_page_and_twin(
    call: Call, tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # nothing of it is needed
    page = tmp_path / "r.html"
    words = ("verify", model, "--backend", "cpu", "--data", data, "--report", page)
    plain = call.json(*words, "--state")
    assert plain == json.loads((tmp_path / "r.json").read_text())
    assert matches(plain, SCHEMA)
    assert plain["proven"]
    assert plain["command"].startswith(f"stformer verify {model} --backend cpu --data")
    text = page.read_text("utf-8")
    assert plain["reports"][0]["network"] in text
    assert plain["command"] in text
    assert "data" in text and "x.npy" in text
    call(*words, "--state", "--json")
    assert page.read_text("utf-8") == text


def test_verify_reports_a_difference_and_accuracy(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = storage.load()

    def wrong(network: Network, inputs: Any, probe: Any) -> Trace:
        from stformer import deploy

        trace = deploy.run("cpu", network, inputs, probe=probe)
        name = network.populations[2].name
        return changed(trace, name, (2, 0, *(0 for _ in network[name].shape)))

    fake_backend(monkeypatch, wrong)
    page = tmp_path / "r.html"
    words = ("verify", "--backend", "cpu,fake", "--samples", "5", "--report", page)
    code, out, err = call(*words)
    assert code == 1, err
    text = page.read_text("utf-8")
    assert f"Population {network.populations[2].name}, sample 2, step 0, neuron 0" in text
    assert "One sample through the network" in text  # of the equal one
    assert "accuracy of reference, 5 samples" in text
    plain = json.loads((tmp_path / "r.json").read_text())
    assert plain["reports"][1]["correct"]["reference"] >= 4
    assert out.startswith("EQUIVALENT  cpu")


def test_verify_of_traces_reports_too(call: Call, tmp_path: Path, model: Path, data: Path) -> None:
    a, b, page = tmp_path / "a", tmp_path / "b", tmp_path / "r.html"
    for backend, path in (("reference", a), ("cpu", b)):
        assert call("run", model, "--backend", backend, "--data", data, "-o", path)[0] == 0
    plain = call.json("verify", "--traces", a, b, "--report", page)
    assert plain["proven"]
    assert plain["reports"][0]["network_name"] == ""
    assert matches(json.loads(twin(page).read_text()), SCHEMA)
    assert "two traces" in page.read_text("utf-8")


def test_a_report_that_cannot_be_written_is_told_first(
    call: Call, tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_backend(monkeypatch)  # must not run
    words = ("verify", model, "--backend", "fake", "--data", data, "--report")
    assert "ends in .html" in call.fails(*words, tmp_path / "r.txt")
    assert "no folder" in call.fails(*words, tmp_path / "gone" / "r.html")
    (tmp_path / "r.json").mkdir()
    assert "a folder" in call.fails(*words, tmp_path / "r.html")
    (tmp_path / "t.json").write_bytes(b"x")
    traces = ("verify", "--traces", tmp_path / "t.json", data, "--report", tmp_path / "t.html")
    assert "the same file as the input" in call.fails(*traces)
    assert (tmp_path / "t.json").read_bytes() == b"x"


def test_a_failed_page_leaves_nothing(
    attention: tuple[Network, Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = proof_of(*attention, attention[1])

    def full(*_: object) -> None:
        raise InputError("x", "no room", "room")

    monkeypatch.setattr(proof, "write_text", full)
    with pytest.raises(InputError, match="no room"):
        write_report(tmp_path / "r.html", made)
    assert not list(tmp_path.iterdir())
