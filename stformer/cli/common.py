"""What several commands share: models, data, output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stformer.errors import InputError, Unavailable

if TYPE_CHECKING:
    import numpy.typing as npt

    from stformer.network import Network

ARRAYS = (".npy", ".npz")
# Backends that take a second a sample run this many where nobody says otherwise.
FEW = {"lava-sim": 64, "lava-sim-fast": 64}


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="an .stf file; the packaged model by default"
    )


def add_data(
    parser: argparse.ArgumentParser,
    default: str = "the samples packaged with the packaged model",
) -> None:
    parser.add_argument(
        "--data",
        metavar="D",
        help="a data set by name (its test split), or an .npy or .npz file: inputs "
        f"[S, T, *shape], in an .npz also labels; by default, {default}",
    )
    parser.add_argument(
        "--samples", metavar="N", type=positive, help="only the first N samples; all by default"
    )


def add_lava_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lava-models",
        choices=("stock", "fast"),
        help="whose process models Lava runs: its own (stock, the default), or ours, which are "
        "bit-identical and faster; lava-sim with fast is the backend lava-sim-fast",
    )


def backend_named(args: argparse.Namespace, name: str) -> str:
    """The backend that a name means under --lava-models."""
    return "lava-sim-fast" if name == "lava-sim" and args.lava_models == "fast" else name


def check_lava_models(args: argparse.Namespace, names: list[str]) -> None:
    """Raise UsageError where --lava-models is given and says nothing about these backends."""
    from stformer.cli.parser import UsageError

    if args.lava_models and "lava-sim" not in names:
        given = ", ".join(names)
        raise UsageError(
            f"stformer {args.command}: --lava-models is about lava-sim, not about {given}"
        )


def positive(text: str) -> int:
    """Type of a flag that counts."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: a whole number from 1")
    return value


def load_model(args: argparse.Namespace) -> Network:
    """The model that was named, or the packaged one."""
    from stformer.storage import load

    network = load(args.model)
    say(args, f"network {network.name}, {len(network.populations)} populations")
    return network


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Samples to run.

    Attributes:
        inputs: population -> [S, T, *shape], at least one sample.
        labels: [S], or None where there are none.
        source: what they are, for people.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    labels: npt.NDArray[Any] | None
    source: str

    @property
    def samples(self) -> int:
        return len(next(iter(self.inputs.values())))


def load_data(args: argparse.Namespace, network: Network) -> Data:
    """What --data and --samples ask for, checked against the network.

    Raises:
        InputError: no data named for a model that is not the packaged one, an unknown data
            set, a file that is not one of arrays, arrays that do not fit the network, a network
            without inputs.
    """
    from stformer.trace import fitting

    if not network.inputs:
        raise InputError(f"network {network.name}", "no input", "one that samples can go into")
    data = _find_data(args, network)
    there = data.samples
    if args.samples and args.samples > there:
        note(f"--samples {args.samples}: there are {there} samples in {data.source}; all are used")
    keep = args.samples or there
    # A copy of the few that are kept lets the others go.
    inputs = {name: a[:keep] for name, a in data.inputs.items()}
    labels = None if data.labels is None else data.labels[:keep]
    say(args, f"{min(keep, there)} samples of {data.source}")
    return Data(inputs=fitting(network, inputs), labels=labels, source=data.source)


def _find_data(args: argparse.Namespace, network: Network) -> Data:
    from stformer.cli.arrays import read_data

    name: str | None = args.data
    if name is None:
        from stformer.storage import PACKAGED

        if args.model is None:
            return read_data(PACKAGED.with_name("digits-samples.npz"), network)
        name = _trained_on(args.model)
        if name is None:
            raise InputError(
                "--data", "nothing given", _known_data(), f"say what {args.model} shall run on"
            )
    path = Path(name)
    if path.suffix in ARRAYS or path.exists() or len(path.parts) > 1:
        return read_data(path, network)
    from stformer.data import load_inputs

    if len(network.inputs) != 1:
        raise InputError(
            f"--data {name}", "a data set", f"an .npz file with {', '.join(_input_names(network))}"
        )
    prepare_data(name, network.steps)
    frames, labels = load_inputs(name, network)
    return Data(inputs={network.inputs[0].name: frames}, labels=labels, source=f"{name} (test)")


def _trained_on(model: str) -> str | None:
    """The data set that a model file says it was trained on, if it is one of ours."""
    from stformer.data import DATASETS
    from stformer.storage import load_document

    recipe = load_document(model).provenance.get("recipe")
    name = recipe.get("data") if isinstance(recipe, dict) else None
    return name if isinstance(name, str) and name in DATASETS else None


def _known_data() -> str:
    from stformer.data import DATASETS

    return f"a data set ({', '.join(DATASETS)}) or an .npy or .npz file"


def prepare_data(name: str, steps: int) -> None:
    """Convert a large event set, where that has not been done, with signs of life."""
    from stformer import data
    from stformer.cli.progress import Progress

    if data.find(name).convert:
        with Progress(f"converting {name}") as bar:
            data.load(name, steps, bar.of)


def _input_names(network: Network) -> list[str]:
    return [p.name for p in network.inputs]


def check_ready(names: list[str], network: Network) -> None:
    """Raise what running one of these backends would, before any of them has begun."""
    from stformer.deploy import ready

    for name in dict.fromkeys(names):
        ready(name, network)


def need_torch(what: str) -> None:
    """Raise Unavailable, exit code 3, where torch is not installed."""
    if find_spec("torch") is None:
        raise Unavailable(what, "torch is not installed", "pip install 'stformer[train]'")


def check_output(path: str, *inputs: str | None) -> None:
    """Raise InputError for a place that cannot be written, before the work and not after it."""
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise InputError(path, "a folder", "the name of a file")
    if not folder.is_dir():
        raise InputError(path, f"no folder '{folder}'", "an existing folder", "make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(path, f"the folder '{folder}' is read-only", "one that can be written")
    for given in inputs:
        if given and target.exists() and Path(given).exists() and target.samefile(given):
            raise InputError(path, f"the same file as the input '{given}'", "another name")


def emit(args: argparse.Namespace, plain: Mapping[str, Any], text: str) -> None:
    """Print the result: JSON with --json, else text."""
    if args.json:
        print(json.dumps(plain, indent=2, default=lambda value: value.item()))
    else:
        print(printable(text.rstrip("\n")))


def note(text: str) -> None:
    """Tell something on standard error that is no result."""
    print(f"stformer: note: {printable(text)}", file=sys.stderr)


def say(args: argparse.Namespace, text: str) -> None:
    """With -v, what is going on."""
    if args.verbose:
        print(f"stformer: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """Text without what a file's strings could do to a terminal or a narrow encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    safe = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return safe.encode(encoding, "backslashreplace").decode(encoding)
