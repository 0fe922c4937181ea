"""ONNX: the whole integer computation as one graph of standard operators.

The graph is `stformer.export.onnx_build`; docs/onnx.md says what its inputs, outputs and states
are. Nothing here reads files of others: there is no import from ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import Problem
from stformer.export import Note, Options
from stformer.export.onnx_plan import FLOAT64_EXACT, digits, kept, kept_current, plans
from stformer.machine import cores
from stformer.network import (
    Conv,
    Graded,
    Input,
    Lif,
    Network,
    Operand,
    Readout,
    Relay,
    is_graded,
)
from stformer.replay import replay
from stformer.samples import inputs_for
from stformer.trace import Trace, digest_inputs, spike_dtype

MAX_BYTES = 2**31 - 2**24  # of weights; protobuf ends at 2 GiB, the nodes need some of it
SAMPLES = 2  # that `check` runs: one at the upper end of the inputs, one at random

Array = npt.NDArray[Any]


class Onnx:
    """Writes a sample's computation, or with `Options.step` one time step of it."""

    name = "onnx"

    def missing(self) -> str | None:
        if find_spec("onnx") is None:
            return "onnx is not installed; pip install 'stformer[onnx]'"
        return None

    def problems(self, network: Network, options: Options) -> list[Problem]:
        return [
            *_timing_problems(network, options),
            *_range_problems(network),
            *_size_problems(network),
        ]

    def notes(self, network: Network, options: Options) -> list[Note]:
        wide = [name for name, plan in plans(network).items() if plan.dtype is np.float64]
        out = [
            Note(
                where="network",
                what="integers are whole numbers of float32, or float64 where sums may exceed "
                f"2^24 ({len(wide)} of {len(network.populations)} populations); an execution "
                "provider that rounds them (TF32, fp16, Winograd) is not exact",
            ),
            Note(
                where="network",
                what="latencies are metadata only: every population is in its own time",
            ),
        ]
        if network.source:
            out.append(Note(where="network", what="how to rebuild the trained module is left out"))
        if options.step:
            out.append(
                Note(
                    where="network",
                    what=f"samples are kept apart by the caller: all states are zero before the "
                    f"first of {network.steps} steps",
                )
            )
        return out

    def suffix(self, network: Network, options: Options) -> str:
        return ".step.onnx" if options.step else ".onnx"

    def write(self, network: Network, path: Path, options: Options) -> None:
        from stformer.export.onnx_build import one_step, whole

        notes = [f"{n.where}: {n.what}" for n in self.notes(network, options)]
        model = (one_step if options.step else whole)(network, notes)
        path.write_bytes(model.SerializeToString(deterministic=True))

    def check(self, network: Network, path: Path, options: Options) -> None:
        """See `Format.check`; runs the file where onnxruntime is there."""
        import onnx
        from onnx import numpy_helper

        from stformer.export.onnx_graph import constant_name

        try:
            onnx.checker.check_model(str(path), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
            raise AssertionError(f"onnx's checker: {e}") from e
        model = onnx.load(str(path), load_external_data=False)
        found = {p.key: p.value for p in model.metadata_props}
        assert found["stformer.digest"] == network.digest(), "another network's digest"
        held = {i.name: numpy_helper.to_array(i) for i in _initializers(model.graph)}
        for name, wanted in _parameters(network, options):
            assert name in held, f"no {name}"
            array = held.pop(name)
            assert array.dtype == wanted.dtype, f"{name} of type {array.dtype}"
            assert np.array_equal(array, wanted), f"other values in {name}"
        for name, array in held.items():
            assert name.endswith(constant_name(array)), f"another value in {name}"
        if find_spec("onnxruntime"):
            _check_run(network, path, options)


def _initializers(graph: Any) -> Iterator[Any]:
    """Of a graph and the bodies in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _initializers(attribute.g)


def _check_run(network: Network, path: Path, options: Options) -> None:
    """Every population must send what the definition says for what the file's others sent."""
    inputs = inputs_for(network, SAMPLES, np.random.default_rng(0))
    frames: dict[str, Array] = {
        name: x.astype(spike_dtype(network, name)) for name, x in inputs.items()
    }
    outputs = run_steps(network, path, frames) if options.step else run_sample(path, frames)
    trace = Trace(
        network=network.digest(),
        inputs=digest_inputs(inputs),
        backend="onnx",
        spikes={p.name: (frames | outputs)[p.name] for p in network.populations},
    )
    for p in network.populations:
        if isinstance(p, Input):
            continue
        alone = replay(network, p.name, trace)
        assert np.array_equal(trace[p.name], alone.spikes), f"{p.name} sends something else"
        for state, wanted in ((f"{p.name}/u", alone.u), (f"{p.name}/v", alone.v)):
            if state in outputs:
                assert wanted is not None and np.array_equal(outputs[state], wanted), (
                    f"{state} goes out as something else"
                )


def run_sample(path: Path, frames: dict[str, Array]) -> dict[str, Array]:
    """What the file sends for frames [samples, T, *shape] of the inputs."""
    session = _session(path)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, frames), strict=True))


def run_steps(network: Network, path: Path, frames: dict[str, Array]) -> dict[str, Array]:
    """A sample, step after step: what goes out of a state goes into it again.

    Returns:
        population, or state after each step -> [samples, T, *shape].
    """
    from stformer.export.onnx_build import NEXT, states

    samples = len(next(iter(frames.values()))) if frames else 1
    held = {s.name: np.zeros((samples, *s.shape), s.dtype) for s in states(network)}
    session = _session(path)
    names = [o.name for o in session.get_outputs()]
    steps: list[dict[str, Array]] = []
    for t in range(network.steps):
        now = {name: x[:, t] for name, x in frames.items()}
        made = dict(zip(names, session.run(names, now | held), strict=True))
        held = {name: made.pop(name + NEXT) for name in held}
        steps.append(made | held)
    return {name: np.stack([made[name] for made in steps], axis=1) for name in steps[0]}


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = cores()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _parameters(network: Network, options: Options) -> Iterator[tuple[str, Array]]:
    """(name, array) of everything of the network that a file must hold as it is."""
    for q in network.projections:
        late = abs(q.delay) >= network.steps and not options.step and not network.recurrent
        passed_on = isinstance(network[q.post], Relay) and not is_graded(network[q.pre])
        if not isinstance(q, Operand) and not late and not passed_on:
            yield f"{q.name}/weight", np.asarray(q.weight, np.int8)
    for p in network.populations:
        plan = plans(network)[p.name]
        if isinstance(p, (Lif, Readout, Graded)) and plan.bias:
            yield f"{p.name}/bias", p.bias_mant
        if isinstance(p, Lif):
            yield f"{p.name}/threshold", np.asarray(p.vth << fx.SHIFT, plan.dtype)
            for key, keeps, keep in (
                ("u", plan.keeps_u, kept_current(p.du)),
                ("v", plan.keeps_v, kept(p.dv)),
            ):
                if keeps and keep < fx.DECAY_ONE:
                    yield f"{p.name}/{key}.keep", np.asarray(keep / fx.DECAY_ONE, plan.dtype)


def _timing_problems(network: Network, options: Options) -> Iterator[Problem]:
    ahead = [q for q in network.projections if q.delay < 0]
    for q in ahead if options.step or network.recurrent else ():
        why = f"it looks {-q.delay} steps ahead, and "
        if options.step:
            why += "a step knows no later ones; export the whole sample"
        else:
            why += "a network with recurrence runs step after step"
        yield Problem(where=f"projection {q.name}", why=why)
    if network.recurrent and not network.inputs and not options.step:
        yield Problem(
            where="network",
            why="recurrence without an input to step through; export a single step",
        )


def _range_problems(network: Network) -> Iterator[Problem]:
    for name, plan in plans(network).items():
        if plan.largest > FLOAT64_EXACT:
            yield Problem(
                where=f"population {name}", why=f"values up to {plan.largest} exceed 2^53"
            )
    for q in network.projections:
        if isinstance(q, Conv) and digits(network, q) == 0:
            yield Problem(
                where=f"projection {q.name}",
                why="sums of its weights alone exceed 2^24, more than a float32 convolution has",
            )


def _size_problems(network: Network) -> Iterator[Problem]:
    size = sum(
        np.asarray(q.weight).size for q in network.projections if not isinstance(q, Operand)
    )
    if size > MAX_BYTES:
        yield Problem(
            where="network",
            why=f"{size / 2**30:.1f} GiB of weights; a file of this format ends at 2 GiB",
        )
