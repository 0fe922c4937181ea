"""The ONNX file: what is in it, what it computes in two runtimes, and what `check` notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from stformer import export, interpret, storage, testing  # noqa: E402
from stformer.errors import Unsupported  # noqa: E402
from stformer.export import Options  # noqa: E402
from stformer.export import onnx as format_  # noqa: E402
from stformer.export.onnx import Onnx  # noqa: E402
from stformer.export.onnx_build import NEXT, states  # noqa: E402
from stformer.export.onnx_plan import plans  # noqa: E402
from stformer.network import (  # noqa: E402
    Conv,
    Dense,
    Input,
    Network,
    OneToOne,
)
from stformer.passes import assign_latency  # noqa: E402
from stformer.trace import Trace, spike_dtype  # noqa: E402

STEP = Options(step=True)
SAMPLES = [*testing.SAMPLES, "recurrent"]
Array = np.ndarray[Any, Any]


def sample(name: str) -> Network:
    return testing.recurrent_network() if name == "recurrent" else testing.sample_network(name)


def written(network: Network, folder: Path, options: Options = Options()) -> Path:  # noqa: B008
    return export.export("onnx", network, folder / "x.onnx", options).path


def written_only(network: Network, folder: Path, options: Options = Options()) -> Path:  # noqa: B008
    """Without the check, which would find the same differences first."""
    path = folder / "x.onnx"
    assert not Onnx().problems(network, options)
    Onnx().write(network, path, options)
    return path


def frames_of(network: Network, samples: int, seed: int) -> dict[str, Array]:
    inputs = testing.inputs_for(network, samples, np.random.default_rng(seed))
    return {name: x.astype(spike_dtype(network, name)) for name, x in inputs.items()}


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_sample(path: Path, frames: dict[str, Array]) -> dict[str, Array]:
    s = session(path)
    names = [o.name for o in s.get_outputs()]
    return dict(zip(names, s.run(names, frames), strict=True))


def run_steps(path: Path, frames: dict[str, Array], steps: int) -> dict[str, Array]:
    """Only what the file itself tells: its states are the inputs that metadata names."""
    s = session(path)
    onward = json.loads(s.get_modelmeta().custom_metadata_map["stformer.states"])
    batch = len(next(iter(frames.values()))) if frames else 1
    types = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}
    held = {
        i.name: np.zeros((batch, *i.shape[1:]), types[i.type])
        for i in s.get_inputs()
        if i.name in onward
    }
    names = [o.name for o in s.get_outputs()]
    rows: list[dict[str, Array]] = []
    for t in range(steps):
        now = {name: x[:, t] for name, x in frames.items()}
        made = dict(zip(names, s.run(names, now | held), strict=True))
        held = {name: made.pop(out) for name, out in onward.items()}
        rows.append(made)
    return {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}


def assert_equal(expected: Trace, found: dict[str, Array], network: Network) -> None:
    rest = [p.name for p in network.populations if not isinstance(p, Input)]
    assert list(found) == rest
    for name in rest:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def steppable(network: Network) -> bool:
    return all(p.delay >= 0 for p in network.projections)


def compare(network: Network, folder: Path, samples: int, seed: int) -> None:
    frames = frames_of(network, samples, seed)
    expected = interpret.run(network, frames)
    assert_equal(expected, run_sample(written_only(network, folder), frames), network)
    if steppable(network):
        path = written_only(network, folder, STEP)
        assert_equal(expected, run_steps(path, frames, network.steps), network)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    compare(sample(name), tmp_path, 5, 1)


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    testing.networks() | testing.networks(schedule_=False),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_drawn_networks(
    tmp_path_factory: pytest.TempPathFactory, network: Network, samples: int, seed: int
) -> None:
    if problems := Onnx().problems(network, Options()):
        assert all("exceed 2^" in p.why for p in problems), problems
    else:
        compare(network, tmp_path_factory.getbasetemp(), samples, seed)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_reference_evaluator_agrees(name: str, tmp_path: Path) -> None:
    """Another runtime, which takes the operators' definitions as they are written."""
    network = sample(name)
    frames = frames_of(network, 3, 2)
    evaluator = ReferenceEvaluator(str(written_only(network, tmp_path)))
    with np.errstate(all="ignore"):
        found = dict(zip(evaluator.output_names, evaluator.run(None, frames), strict=True))
    assert_equal(interpret.run(network, frames), found, network)


def graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


@pytest.mark.parametrize("options", [Options(), STEP], ids=["sample", "step"])
@pytest.mark.parametrize("name", SAMPLES)
def test_file(name: str, options: Options, tmp_path: Path) -> None:
    """Checked twice over by `export`; here what a reader of it sees."""
    network = sample(name)
    if options.step and not steppable(network):
        pytest.skip("looks ahead")
    path = written(network, tmp_path, options)
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    seen = list(graphs(model.graph))
    assert {node.domain for graph in seen for node in graph.node} == {""}
    told = {i.name for graph in seen for i in (*graph.value_info, *graph.output, *graph.input)}
    for graph in seen:
        for info in (*graph.value_info, *graph.output, *graph.input):
            for axis, dim in enumerate(info.type.tensor_type.shape.dim):
                assert dim.HasField("dim_value") or dim.dim_param == (
                    "lanes" if axis == 0 and dim.dim_param == "lanes" else "batch"
                )
        for node in graph.node:
            assert set(node.output) <= told
    lead = ["batch"] if options.step else ["batch", network.steps]
    by_name = {i.name: i for i in (*model.graph.input, *model.graph.output)}
    for p in network.populations:
        dims = by_name[p.name].type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dims] == [*lead, *p.shape]
    assert [i.name for i in model.graph.input][: len(network.inputs)] == [
        p.name for p in network.inputs
    ]
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["stformer.digest"] == network.digest()
    assert json.loads(metadata["stformer.latency"])[network.populations[-1].name] == network.depth
    assert len(json.loads(metadata["stformer.notes"])) == len(Onnx().notes(network, options))
    assert model.graph.name == metadata["stformer.network"] == network.name


@pytest.mark.parametrize("options", [Options(), STEP], ids=["sample", "step"])
def test_weights_stay_int8(options: Options, tmp_path: Path) -> None:
    network = testing.sample_network("attention")
    model = onnx.load(str(written(network, tmp_path, options)))
    held = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for q in network.projections:
        weight = held[f"{q.name}/weight"]
        assert weight.dtype == np.int8
        np.testing.assert_array_equal(weight, q.weight)  # type: ignore[union-attr]
    nodes = {node.name: node.op_type for node in model.graph.node}
    assert all(nodes[q.name] in ("Conv", "Mul") for q in network.projections)
    assert nodes["kv"] == "Greater"  # a gate has no memory
    assert nodes["q"] == ("Greater" if options.step else "Scan")


@pytest.mark.parametrize("options", [Options(), STEP], ids=["sample", "step"])
def test_bytes_are_the_same_every_time(options: Options, tmp_path: Path) -> None:
    network = testing.sample_network("temporal")
    one = written(network, tmp_path, options).read_bytes()
    again = testing.sample_network("temporal")
    assert written(again, tmp_path, options).read_bytes() == one
    assert written(testing.sample_network("iand"), tmp_path, options).read_bytes() != one


@pytest.mark.parametrize("options", [Options(), STEP], ids=["sample", "step"])
@pytest.mark.parametrize("name", ["current", "biased", "stream", "attention", "product"])
def test_check_notices_every_changed_number(name: str, options: Options, tmp_path: Path) -> None:
    network = testing.sample_network(name)
    path = written(network, tmp_path, options)
    whole = path.read_bytes()
    names = [i.name for graph in graphs(onnx.load(str(path)).graph) for i in graph.initializer]
    changed = 0
    for name in names:
        model = onnx.load_model_from_string(whole)
        (initializer,) = (
            i for graph in graphs(model.graph) for i in graph.initializer if i.name == name
        )
        array = numpy_helper.to_array(initializer).copy()
        array.flat[array.size // 2] += array.dtype.type(1)
        initializer.CopyFrom(numpy_helper.from_array(array, name))
        path.write_bytes(model.SerializeToString())
        with pytest.raises(AssertionError):
            Onnx().check(network, path, options)
        changed += 1
    assert changed > 3


def test_check_notices_another_digest_and_another_graph(tmp_path: Path) -> None:
    network = testing.sample_network("iand")
    path = written(network, tmp_path)
    with pytest.raises(AssertionError, match="digest"):
        Onnx().check(testing.sample_network("and"), path, Options())
    model = onnx.load(str(path))
    (fired,) = [n for n in model.graph.node if n.name == "iand"]
    fired.op_type = "Less"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(AssertionError, match="iand sends something else"):
        Onnx().check(network, path, Options())


def test_check_without_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = format_.find_spec
    monkeypatch.setattr(
        format_, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    written(testing.sample_network("iand"), tmp_path)


def test_samples_do_not_meet(tmp_path: Path) -> None:
    for delay in (1, 2, 3, 9):
        one = OneToOne(name="p", pre="in", post="a", weight=2, delay=delay)
        populations = (Input(name="in", shape=(1,)), testing.lif("a", (1,), 1, dv=4095))
        network = assign_latency(
            Network(name="n", steps=3, populations=populations, projections=(one,))
        )
        frames = {"in": np.ones((4, 3, 1), np.uint8)}
        found = run_sample(written(network, tmp_path), frames)
        wanted = [0] * min(delay, 3) + [1] * max(0, 3 - delay)
        np.testing.assert_array_equal(found["a"][..., 0], [wanted] * 4)
        compare(network, tmp_path, 3, 0)


def test_without_inputs(tmp_path: Path) -> None:
    post = testing.lif("a", (2,), 3, bias_mant=np.array([100, 0]))
    network = Network(name="n", steps=5, populations=(post,), projections=())
    written(network, tmp_path)
    written(network, tmp_path, STEP)
    compare(network, tmp_path, 1, 0)


def test_names_that_meet(tmp_path: Path) -> None:
    """Populations and projections may share names; the file keeps them apart."""
    network = assign_latency(
        Network(
            name="p",
            steps=4,
            populations=(Input(name="in", shape=(3,)), testing.lif("p", (3,), 2)),
            projections=(OneToOne(name="p", pre="in", post="p", weight=1),),
        )
    )
    written(network, tmp_path)
    compare(network, tmp_path, 2, 0)


# --- what is left out -----------------------------------------------------------------------


def test_states_that_never_matter_are_left_out() -> None:
    network = testing.sample_network("attention")
    assert {s.name for s in states(network)} == {"q/v", "k/v", "v/v", "gate/v"}
    plan = plans(network)
    assert {p.dtype for p in plan.values()} == {np.float32}
    assert not any(p.wraps or p.clips for p in plan.values())
    temporal = {s.name: s.shape for s in states(testing.sample_network("temporal"))}
    assert temporal["in/past"] == (1, 2, 3, 3)
    assert {s.name for s in states(testing.sample_network("current"))} == {
        *("a/u", "a/v"),
        *("b/u", "b/v"),
    }


def test_pruning(tmp_path: Path) -> None:
    """As docs/onnx.md says."""
    network = testing.sample_network("readout")
    path = written(network, tmp_path)
    onnx.utils.extract_model(str(path), str(tmp_path / "out.onnx"), ["in"], ["out"])
    frames = frames_of(network, 3, 0)
    found = run_sample(tmp_path / "out.onnx", frames)
    assert list(found) == ["out"]
    np.testing.assert_array_equal(found["out"], interpret.run(network, frames)["out"])


def test_names_of_files_and_states() -> None:
    network = testing.sample_network("current")
    assert Onnx().suffix(network, Options()) == ".onnx"
    assert Onnx().suffix(network, STEP) == ".step.onnx"
    assert NEXT == ".next"


def refused(network: Network, options: Options, match: str) -> None:
    with pytest.raises(Unsupported, match=match):
        export.ready("onnx", network, options)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = testing.sample_network("look-ahead")
    refused(ahead, STEP, r"projection tap-1: it looks 1 steps ahead")
    assert not Onnx().problems(ahead, Options())
    n = 2**17
    weight = np.full((1, n), -128, np.int8)
    wide = Network(
        name="n",
        steps=1,
        populations=(Input(name="in", shape=(n,), low=-(2**23)), testing.lif("a", (1,), 1)),
        projections=(Dense(name="d", pre="in", post="a", weight=weight, weight_exp=7),),
    )
    refused(wide, Options(), r"population a: values up to \d+ exceed 2\^53")
    shape = (n + 1, 1, 1)
    heavy = Network(
        name="n",
        steps=1,
        populations=(Input(name="in", shape=shape), testing.lif("a", (1, 1, 1), 1)),
        projections=(
            Conv(name="c", pre="in", post="a", weight=np.full((1, *shape), -128, np.int8)),
        ),
    )
    refused(heavy, Options(), r"projection c: sums of its weights alone")
    monkeypatch.setattr(format_, "MAX_BYTES", 10)
    refused(testing.sample_network("dense"), Options(), r"GiB of weights")


def test_recurrence_that_cannot_be_a_sample() -> None:
    loop = OneToOne(name="a>a", pre="a", post="a", weight=2, delay=1)
    post = testing.lif("a", (1, 1, 1), 3, bias_mant=np.full((1, 1, 1), 100))
    alone = Network(name="n", steps=2, populations=(post,), projections=(loop,))
    refused(alone, Options(), "recurrence without an input")
    assert not Onnx().problems(alone, STEP)
    early = OneToOne(name="in>a", pre="in", post="a", weight=2, delay=-1)
    both = Network(
        name="n",
        steps=2,
        populations=(Input(name="in", shape=(1, 1, 1)), post),
        projections=(loop, early),
    )
    refused(both, Options(), r"projection in>a: it looks 1 steps ahead, .* step after step")


def test_no_bias_is_no_parameter(tmp_path: Path) -> None:
    model = onnx.load(str(written(testing.sample_network("readout"), tmp_path)))
    names = {i.name for graph in graphs(model.graph) for i in graph.initializer}
    assert "out/bias" in names and "a/bias" not in names


# --- trained networks -----------------------------------------------------------------------


def test_the_packaged_model(tmp_path: Path) -> None:
    network = storage.load()
    compare(network, tmp_path, 2, 0)
    written(network, tmp_path)
