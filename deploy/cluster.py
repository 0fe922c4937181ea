"""Samples spread over many processes or machines, with Dask; the result is one process's.

A cluster is named by a text: "local:N" (N processes here), "slurm:SITE.toml" (jobs of a batch
system, see `stformer.deploy.site.Slurm`) or "tcp://HOST:PORT" (a Dask scheduler that runs
already). Dask sends pickled objects between its processes, so a scheduler is trusted as this
very process is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, TypeVar

from stformer import deploy
from stformer.deploy import Progress
from stformer.deploy.site import read_site
from stformer.errors import InputError, Unavailable
from stformer.network import IntArray, Network
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, joined, numbered

FORMS = "local:N, slurm:SITE.toml or tcp://HOST:PORT"
MOST_AT_ONCE = 64  # samples in a chunk: what is lost with a worker
LONGEST_WAIT = 600.0  # seconds for the first worker; batch systems queue

T = TypeVar("T")
R = TypeVar("R")


def missing() -> str | None:
    """None where Dask is installed, else what is missing; how to get it."""
    if find_spec("distributed") is None:
        return "dask.distributed is not installed; pip install 'stformer[cluster]'"
    return None


@contextmanager
def connect(spec: str) -> Iterator[Any]:
    """A Dask client of a cluster that is there for the block.

    Args:
        spec: see the head of this file.

    Raises:
        InputError: no such form, a bad site file, a scheduler that does not answer, no worker
            within ten minutes.
        Unavailable: Dask is not installed.
    """
    if reason := missing():
        why, _, do = reason.partition("; ")
        raise Unavailable(f"--cluster {spec}", why, do)
    with ExitStack() as stack:
        yield _client(spec, stack)


def _client(spec: str, stack: ExitStack) -> Any:
    import distributed
    from distributed import Client, LocalCluster

    late = (TimeoutError, distributed.TimeoutError)  # two classes before Python 3.11
    kind, _, rest = spec.partition(":")
    own_port: dict[str, Any] = {"dashboard_address": ":0"}  # the usual one may be taken
    if kind == "local" and rest.isascii() and rest.isdigit() and 1 <= int(rest) <= 1024:
        cluster = LocalCluster(n_workers=int(rest), threads_per_worker=1, **own_port)
        return stack.enter_context(Client(stack.enter_context(cluster)))
    if kind == "slurm" and rest:
        from dask_jobqueue.slurm import SLURMCluster

        site = read_site(rest, "slurm").slurm
        assert site is not None
        jobs: Any = SLURMCluster(
            queue=site.partition or None,
            account=site.account or None,
            cores=site.cores,
            processes=1,
            memory=site.memory,
            walltime=site.walltime,
            job_extra_directives=list(site.directives),
            worker_extra_args=["--nthreads", "1"],
            scheduler_options=own_port,
        )
        stack.enter_context(jobs)
        jobs.scale(jobs=site.workers)
        client = stack.enter_context(Client(jobs))
    elif kind in ("tcp", "tls") and re.fullmatch(r"//[\w.\[\]:-]+:\d{1,5}", rest):
        try:
            client = stack.enter_context(Client(spec, timeout=10))
        except (OSError, *late) as e:
            raise InputError(f"--cluster {spec}", "no scheduler answers", FORMS) from e
    else:
        raise InputError("--cluster", f"'{spec}'", FORMS)
    try:
        client.wait_for_workers(1, timeout=LONGEST_WAIT)
    except late as e:
        found = f"no worker within {LONGEST_WAIT:.0f} s"
        raise InputError(f"--cluster {spec}", found, "a queue that starts jobs") from e
    return client


def each(
    client: Any, task: Callable[[T], R], items: Iterable[T], then: Callable[[int, R], None]
) -> None:
    """Run a task on every item, on whatever worker is free; what a lost worker had is run again.

    Args:
        client: of `connect`.
        task: a function of a module, which the workers import.
        items: what it is called with, one by one; picklable.
        then: called with (index of the item, result) as they are done, in any order.

    Raises:
        StformerError: as the task raises them.
        InputError: workers were lost with the same item again and again.
    """
    from distributed import KilledWorker, as_completed

    futures = {client.submit(task, item, pure=False): i for i, item in enumerate(items)}
    try:
        for future in as_completed(list(futures)):
            then(futures[future], future.result())
            future.release()
    except KilledWorker as e:
        found = "workers were lost with the same work, one after the other"
        raise InputError("--cluster", found, "workers with more memory") from e
    finally:
        client.cancel(list(futures))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    backend: str
    network: Network
    frames: Mapping[str, IntArray]
    probe: Probe


def _run_chunk(chunk: _Chunk) -> Trace:
    t = deploy.run(chunk.backend, chunk.network, chunk.frames, probe=chunk.probe)
    # Mapping proxies, which are the defaults, cannot be pickled.
    return replace(t, spikes=dict(t.spikes), u=dict(t.u), v=dict(t.v), info=dict(t.info))


def run(
    client: Any,
    name: str,
    network: Network,
    inputs: Inputs,
    *,
    probe: Probe | None = None,
    progress: Progress | None = None,
) -> Trace:
    """`stformer.deploy.run` with the samples spread over a cluster's workers.

    Args:
        client: of `connect`.
        name, network, inputs, probe: as there.
        progress: called with (samples done, samples in all).

    Raises:
        StformerError: as there, from wherever it happened; InputError for workers that run
            another version of stformer, and as `each`.
    """
    frames = check_inputs(network, inputs)
    total = len(next(iter(frames.values()))) if frames else 1
    workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    size = min(MOST_AT_ONCE, -(-total // (2 * workers)))
    starts = range(0, total, size)
    begun, done = time.perf_counter(), 0
    parts: dict[int, Trace] = {}

    def take(i: int, trace: Trace) -> None:
        nonlocal done
        if trace.network != network.digest():
            found = f"a worker that understands the network as {trace.network[:12]}"
            raise InputError("--cluster", found, "workers with this version of stformer")
        parts[i] = trace
        done += min(size, total - starts[i])
        if progress:
            progress(done, total)

    chunks = (
        _Chunk(
            backend=name,
            network=network,
            frames={k: a[start : start + size] for k, a in frames.items()},
            probe=probe or Probe(),
        )
        for start in starts
    )
    each(client, _run_chunk, chunks, take)
    ordered = [parts[i] for i in sorted(parts)]

    info = {
        "seconds": time.perf_counter() - begun,
        "workers": float(workers),
        "chunks": float(len(ordered)),
        **numbered(note for part in ordered for note in part.notes),
    }
    return replace(joined(ordered, digest_inputs(frames)), backend=name, info=info)
