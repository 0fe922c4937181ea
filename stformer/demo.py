"""The main job in one go: train on digits, compile, export, run on Lava, prove spikes equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from stformer import compile as compiling
from stformer import data, deploy, export, recipe, storage, train
from stformer.files import atomic_path, make_folder
from stformer.proof import Proof, observed, twin, write_report
from stformer.report import Report
from stformer.trace import Probe
from stformer.verify import compare, first_samples

BACKENDS = ("cpu", "torch", "lava-sim")
EXPORTS = {"nir": "digits.nir", "netx": "digits.netx", "onnx": "digits.onnx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the demo made.

    Attributes:
        compiled: network and accuracies.
        reports: one per backend.
        files: what lies where.
        info: backend -> what its trace reports of the run.
    """

    compiled: compiling.Compiled
    reports: list[Report]
    files: dict[str, Path]
    info: dict[str, dict[str, float | str]]

    @property
    def lava(self) -> str:
        """The Lava run's figures."""
        info = self.info["lava-sim"]
        return (
            f"{info['lava_processes']} processes, {info['seconds']:.0f} s, "
            f"peak memory {info['peak_memory_mib']:.0f} MiB"
        )

    @property
    def proven(self) -> bool:
        return all(r.proven for r in self.reports)


def demo(
    out: Path,
    *,
    lava_samples: int = 64,
    overrides: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int, str], None] = lambda *_: None,
) -> Result:
    """Train, compile, run and prove into a folder; goes on where an earlier try stopped.

    Args:
        out: folder; training resumes from `out/run`.
        lava_samples: digits that go through Lava; the other backends run all 360.
        overrides: of the recipe, `key=value`.
        say: gets a line when something begins or is done.
        progress: gets (part, done, total, note) as training and runs go on.

    Raises:
        Unavailable: a backend or format is missing; nothing has been trained then.
    """
    for name in BACKENDS:
        deploy.available(name)
    for name in EXPORTS:
        export.available(name)

    def epoch_of(part: str) -> train.Report:
        def report(row: dict[str, Any]) -> None:
            progress(part, int(row["epoch"]), int(row["epochs"]), train.epoch_text(row))

        return report

    chosen = recipe.load("digits", overrides)
    make_folder(out)
    files = {
        "run": out / "run",
        "model": out / "digits.stf",
        "samples": out / "digits-samples.npz",
        **{name: out / file for name, file in EXPORTS.items()},
        "trace": out / "reference.trace",
        "report": out / "report.html",
        "json": twin(out / "report.html"),
    }
    say(f"training '{chosen.name}' for {chosen.train.epochs} epochs on 1,437 digits")

    def note_run(part: str, done: int, total: int) -> None:
        progress(part, done, total, "")

    run = train.train(chosen, files["run"], resume=True, report=epoch_of("training"))
    say("compiling to integers")
    compiled = compiling.compile_run(run, report=epoch_of("fine-tuning"))
    network = compiled.network
    storage.save(files["model"], network, provenance=compiled.provenance(chosen))
    for name in EXPORTS:
        say(f"exporting {name}, reading it back and comparing")
        export.export(name, network, files[name])
    inputs, labels = data.load_inputs(chosen.data, network)
    with atomic_path(files["samples"]) as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, inputs=inputs, labels=labels)

    probe = Probe(states=True)
    say(f"running the reference on {len(inputs)} test digits")
    reference = deploy.run("reference", network, inputs, probe=probe)
    replace(reference, u={}, v={}).save(files["trace"])  # states would be 90 MB more
    comparisons, info = [], {}
    for name in BACKENDS:
        count = lava_samples if name == "lava-sim" else len(inputs)
        say(f"running {name} on {min(count, len(inputs))} test digits")
        trace = deploy.run(
            name, network, inputs[:count], probe=probe, progress=partial(note_run, name)
        )
        expected = first_samples(reference, {"input": inputs[:count].astype(np.int32)})
        report = compare(expected, trace, network, states=True)
        comparisons.append(observed(report, expected, trace, network, labels))
        info[name] = dict(trace.info)
    result = Result(
        compiled=compiled, reports=[c.report for c in comparisons], files=files, info=info
    )
    proof = Proof(
        comparisons=tuple(comparisons),
        network=network,
        data=f"{chosen.data} (test)",
        command=f"stformer verify {quote(str(files['model']))} --data "
        f"{quote(str(files['samples']))} --backend {','.join(BACKENDS)} --state",
        facts=_facts(result),
    )
    write_report(files["report"], proof)
    return result


def _facts(result: Result) -> dict[str, str]:
    c = result.compiled
    return {
        "float accuracy": f"{100 * c.float_accuracy:.2f} %",
        "integer accuracy": f"{100 * c.integer_accuracy:.2f} %",
        "network": f"{len(c.network.populations)} populations, {len(c.network.projections)} "
        f"projections, {c.network.depth} steps deep",
        "Lava run": result.lava,
    }
