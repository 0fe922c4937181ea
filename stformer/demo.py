"""The main job in one go: train on digits, compile, run on Lava, prove every spike equal."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from stformer import compile as compiling
from stformer import data, deploy, recipe, storage, train
from stformer.files import atomic_path, make_folder, write_text
from stformer.page import Subject, proof_page
from stformer.report import Report
from stformer.trace import Probe
from stformer.verify import compare, first_samples

BACKENDS = ("cpu", "torch", "lava-sim")


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
        Unavailable: a backend is missing; nothing has been trained then.
    """
    for name in BACKENDS:
        deploy.available(name)

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
        "trace": out / "reference.trace",
        "report": out / "report.html",
    }
    say(f"training '{chosen.name}' for {chosen.train.epochs} epochs on 1,437 digits")

    def note_run(part: str, done: int, total: int) -> None:
        progress(part, done, total, "")

    run = train.train(chosen, files["run"], resume=True, report=epoch_of("training"))
    say("compiling to integers")
    compiled = compiling.compile_run(run, report=epoch_of("fine-tuning"))
    network = compiled.network
    storage.save(files["model"], network, provenance=compiled.provenance(chosen))
    inputs, labels = data.load_inputs(chosen.data, network)
    with atomic_path(files["samples"]) as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, inputs=inputs, labels=labels)

    probe = Probe(states=True)
    say(f"running the reference on {len(inputs)} test digits")
    reference = deploy.run("reference", network, inputs, probe=probe)
    replace(reference, u={}, v={}).save(files["trace"])  # states would be 90 MB more
    reports, info = [], {}
    for name in BACKENDS:
        count = lava_samples if name == "lava-sim" else len(inputs)
        say(f"running {name} on {min(count, len(inputs))} test digits")
        trace = deploy.run(
            name, network, inputs[:count], probe=probe, progress=partial(note_run, name)
        )
        expected = first_samples(reference, {"input": inputs[:count].astype(np.int32)})
        reports.append(compare(expected, trace, network, states=True))
        info[name] = dict(trace.info)
    result = Result(compiled=compiled, reports=reports, files=files, info=info)
    subject = Subject(
        network=network,
        trace=reference,
        labels=labels,
        facts=_facts(result),
        command="stformer verify MODEL.stf --backend cpu,torch,lava-sim --state",
    )
    write_text(files["report"], proof_page(subject, reports))
    return result


def _facts(result: Result) -> dict[str, str]:
    c = result.compiled
    return {
        "float accuracy": f"{100 * c.float_accuracy:.2f} %",
        "integer accuracy": f"{100 * c.integer_accuracy:.2f} %",
        "network": f"{len(c.network.populations)} populations, {len(c.network.projections)} "
        f"projections, {c.network.depth} steps deep",
        "Lava run": result.lava,
        **versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what takes part, of those that are installed."""
    out = {"Python": platform.python_version()}
    for name in ("stformer", "numpy", "torch", "lava-nc"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
