"""Samples over Dask workers: one process's result, whatever happens to the workers."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import ablate, deploy, recipe, storage, trace_tables
from stformer.cli import run as run_command
from stformer.errors import InputError, Unavailable, Unsupported
from stformer.network import Network
from stformer.testing import assert_traces_equal, inputs_for, recurrent_network, sample_network
from stformer.testing_cli import Call
from stformer.trace import Probe

pytest.importorskip("distributed", reason="needs stformer[cluster]")
from stformer.deploy import cluster

pytestmark = [
    # Dask's own: sockets and loops that it closes late.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster.connect("local:2") as found:
        yield found


@pytest.mark.parametrize("name", ["attention", "stream", "readout"])
def test_the_result_is_one_process_s(name: str, client: Any) -> None:
    network = sample_network(name)
    inputs = inputs_for(network, 7, np.random.default_rng(0))
    probe = Probe(states=True)
    alone = deploy.run("cpu", network, inputs, probe=probe)
    seen: list[tuple[int, int]] = []
    spread = cluster.run(
        client, "cpu", network, inputs, probe=probe, progress=lambda *of: seen.append(of)
    )
    assert_traces_equal(spread, alone)
    assert (spread.network, spread.inputs) == (alone.network, alone.inputs)
    assert spread.info["chunks"] == 4 and spread.info["workers"] == 2
    assert [total for _, total in seen] == [7] * 4 and seen[-1][0] == 7


def test_a_lost_worker_costs_its_chunk_only(client: Any, tmp_path: Path) -> None:
    flag, calls = tmp_path / "killed", tmp_path / "calls"

    def task(item: int) -> int:
        with calls.open("a") as file:
            file.write(f"{item}\n")
        time.sleep(0.1)
        if item == 3 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    found: dict[int, int] = {}
    cluster.each(client, task, range(8), found.__setitem__)
    assert found == {i: i * i for i in range(8)}
    called = calls.read_text().split()
    assert called.count("3") == 2
    # What the killed worker had finished and not handed over may be done once more.
    assert len(called) <= 11


@pytest.mark.slow
def test_work_that_kills_every_worker_ends_in_a_message(client: Any) -> None:
    def task(item: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(InputError, match="more memory"):
        cluster.each(client, task, [1], lambda i, result: None)
    client.wait_for_workers(2, timeout=60)  # for the tests after this one


def test_errors_of_workers_are_ours(client: Any) -> None:
    network = recurrent_network()
    inputs = inputs_for(network, 2, np.random.default_rng(0))
    with pytest.raises(Unsupported, match=r"backend 'cpu' cannot express .*recurrence"):
        cluster.run(client, "cpu", network, inputs)


def test_trainings_are_spread(client: Any, tmp_path: Path) -> None:
    def trainer(chosen: recipe.Recipe, folder: Path) -> tuple[float, None]:
        return (chosen.train.seed + 1) / (10 + len(folder.parent.name)), None

    def outcomes(name: str, **more: Any) -> dict[tuple[str, int], float]:
        steps: list[int] = []
        found = ablate.run(
            recipe.load("digits"),
            tmp_path / name,
            trainer,
            cases=["baseline", "full"],
            seeds=2,
            integers=False,
            costs={"baseline": 1.0, "full": 2.0},
            begin=lambda step: steps.append(step.done),
            **more,
        )
        assert steps == [0, 1, 2, 3, 4]
        assert len(list((tmp_path / name).rglob(ablate.RESULT))) == 4
        return {(c, seed): o.float_accuracy for c in found for seed, o in found[c].items()}

    alone = outcomes("alone")
    assert len(set(alone.values())) == 4
    assert outcomes("spread", spread=partial(cluster.each, client)) == alone


@pytest.mark.parametrize(
    "error",
    [
        InputError("a", "b", "c", "d"),
        Unsupported("stage", "x", "why"),
        Unavailable("what", "why", "do"),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "local",
        "local:",
        "local:0",
        "local:x",
        "local:-1",
        "slurm:",
        "tcp://",
        "tcp://h:x",
        "k8",
    ],
)
def test_other_forms_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"local:N, slurm:SITE\.toml"), cluster.connect(spec):
        pass


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    class Silent:
        def __init__(self, *_: object, **__: object) -> None:
            raise TimeoutError("nobody")

    monkeypatch.setattr(distributed, "Client", Silent)
    with (
        pytest.raises(InputError, match="no scheduler answers"),
        cluster.connect("tcp://127.0.0.1:9"),
    ):
        pass


def test_commands_take_a_cluster(
    call: Call, tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = tmp_path / "m.stf", tmp_path / "d.npy"
    storage.save(model, network)
    frames = next(iter(inputs_for(network, 6, np.random.default_rng(0)).values()))
    np.save(data, frames.astype(np.uint8))
    words = (model, "--data", data)
    for name in ("a", "b"):
        more = ("--cluster", "local:2") if name == "b" else ()
        call.json("run", *words, "--backend", "cpu", "-o", tmp_path / name, *more)
    size = Probe().size(network)
    monkeypatch.setattr(trace_tables, "WINDOW_BYTES", 2 * size)
    monkeypatch.setattr(run_command, "BLOCK_BYTES", 2 * size)  # blocks of two samples
    spread = ("--cluster", "local:2")
    blocks = call.json("run", *words, "--backend", "cpu", "-o", tmp_path / "c", *spread)
    assert blocks["info"]["chunks"] == 6
    for name in ("b", "c"):
        assert call.json("verify", model, "--traces", tmp_path / "a", tmp_path / name)["proven"]
    assert call.json("verify", *words, "--backend", "cpu", "--cluster", "local:2")["proven"]
    assert "local:N" in call.fails("run", *words, "--backend", "cpu", "--cluster", "here")
    clash = call.fails("verify", "--traces", "a", "b", "--cluster", "local:2")
    assert "--cluster has no use" in clash


# --- batch systems ------------------------------------------------------------------------------


def stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str, scancel: str = "true"
) -> None:
    """sbatch and scancel in the PATH."""
    (folder / "bin").mkdir()
    for name, body in (("sbatch", sbatch), ("scancel", scancel)):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_a_queue_that_never_starts_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    stand_in(tmp_path, monkeypatch, 'echo "Submitted batch job 1"')
    monkeypatch.setattr(cluster, "LONGEST_WAIT", 0.5)
    (tmp_path / "site.toml").write_text("[slurm]\n")
    with (
        pytest.raises(InputError, match="no worker within"),
        cluster.connect(f"slurm:{tmp_path / 'site.toml'}"),
    ):
        pass


@pytest.mark.slow
def test_jobs_of_a_batch_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    script = tmp_path / "script"  # a copy, as SLURM keeps one: the given file is gone soon
    copy = shlex.quote(str(script))
    body = f'cp "$1" {copy}; setsid sh {copy} >{copy}.log 2>&1 & echo "Submitted batch job $!"'
    # The job's number is its process group; the worker ends it with its scheduler, too.
    stand_in(tmp_path, monkeypatch, body, scancel='[ "$1" -gt 1000 ] && kill -- -"$1"; true')
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    site = tmp_path / "site.toml"
    site.write_text(
        '[slurm]\npartition = "oheogulch"\nworkers = 1\nmemory = "1GiB"\n'
        'walltime = "00:10:00"\ndirectives = ["--exclusive"]\n'
    )
    network = sample_network("attention")
    inputs = inputs_for(network, 4, np.random.default_rng(0))
    with cluster.connect(f"slurm:{site}") as client:
        spread = cluster.run(client, "cpu", network, inputs)
    assert_traces_equal(spread, deploy.run("cpu", network, inputs))
    text = script.read_text()
    assert "#SBATCH -p oheogulch" in text and "#SBATCH --exclusive" in text
    assert sys.executable in text
