"""--cluster, for the commands that can spread their work."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from stformer.cli.common import say


def add_cluster(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--cluster",
        metavar="C",
        help=f"spread {what} over Dask workers: local:N processes here, slurm:SITE.toml for "
        "batch jobs, or tcp://HOST:PORT of a scheduler",
    )


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Any]:
    """A client of the cluster that --cluster names; None without it."""
    if args.cluster is None:
        yield None
        return
    from stformer.deploy import cluster

    say(args, f"waiting for workers of {args.cluster}")
    with cluster.connect(args.cluster) as client:
        yield client


@contextmanager
def runner(args: argparse.Namespace) -> Iterator[Callable[..., Any]]:
    """`stformer.deploy.run`, or the same on the cluster that --cluster names."""
    from stformer import deploy

    with connected(args) as client:
        if client is None:
            yield deploy.run
        else:
            from stformer.deploy import cluster

            yield partial(cluster.run, client)
