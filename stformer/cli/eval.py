"""`stformer eval`: accuracy and confusion matrix of a run's float or a model's integer network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from stformer.cli.cluster import add_cluster, runner
from stformer.cli.common import add_data, emit, load_data, load_model, need_torch, prepare_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="RUN|MODEL",
        nargs="?",
        help="a run folder (float) or an .stf file (integer); the packaged model by default",
    )
    add_data(parser)
    add_cluster(parser, "the samples of an integer network")


def run(args: argparse.Namespace) -> int:
    if args.model is not None and Path(args.model).is_dir():
        plain = _float(args)
    else:
        plain = _integer(args)
    emit(args, plain, _text(plain))
    return 0


def _float(args: argparse.Namespace) -> dict[str, Any]:
    need_torch("a run folder")
    from stformer import data, train
    from stformer.errors import InputError

    if args.cluster:
        raise InputError("--cluster", "a run folder", "an .stf file", "compile the run first")

    done = train.load_run(Path(args.model))
    if args.data not in (None, done.recipe.data):
        raise InputError(f"--data {args.data}", "other data", f"the run's, {done.recipe.data}")
    prepare_data(done.recipe.data, done.model.config.steps)
    split = data.load(done.recipe.data, done.model.config.steps)["test"]
    keep = args.samples or len(split)
    split = data.Split(frames=split.frames[:keep], labels=split.labels[:keep])
    predictions = train.predict(done.model, split).argmax(1).numpy()
    what = f"float network of {args.model}, {done.epochs_done} epochs"
    return describe(what, f"{done.recipe.data} (test)", predictions, split.labels)


def _integer(args: argparse.Namespace) -> dict[str, Any]:
    from stformer.errors import InputError
    from stformer.trace import Probe, predicted

    network = load_model(args)
    found = load_data(args, network)
    if found.labels is None:
        raise InputError(found.source, "no labels", "an .npz file with inputs and labels")
    readouts = tuple(p.name for p in network.readouts)
    with runner(args) as run_on:
        trace = run_on("cpu", network, found.inputs, probe=Probe(populations=readouts))
    predictions = predicted(network, trace)
    if predictions is None:
        raise InputError(f"network {network.name}", f"{len(readouts)} readouts", "one")
    return describe(f"integer network {network.name}", found.source, predictions, found.labels)


def describe(what: str, source: str, predictions: Any, labels: Any) -> dict[str, Any]:
    """Accuracy and confusion matrix (rows: labels, columns: predictions) as plain data."""
    classes = int(max(predictions.max(), labels.max())) + 1
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    correct = int((predictions == labels).sum())
    return {
        "network": what,
        "data": source,
        "samples": len(labels),
        "correct": correct,
        "accuracy": correct / len(labels),
        "confusion": confusion.tolist(),
    }


def _text(plain: dict[str, Any]) -> str:
    from stformer.report import table

    rows = [
        [label, *row, row[label] / max(sum(row), 1)]
        for label, row in enumerate(plain["confusion"])
    ]
    head = ["label", *map(str, range(len(rows))), "right"]
    return (
        f"accuracy {100 * plain['accuracy']:.2f} %, {plain['correct']} of {plain['samples']}\n"
        f"{plain['network']} on {plain['data']}\n\n"
        "rows are labels, columns what the network said:\n" + table(head, rows)
    )
