"""`stformer plot`: pictures of networks at work and of training runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stformer.cli.common import (
    add_data,
    check_output,
    check_ready,
    emit,
    load_data,
    load_model,
    say,
)
from stformer.cli.parser import UsageError
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.cli.common import Data
    from stformer.network import Network
    from stformer.plot import Recording
    from stformer.trace import Trace
    from stformer.trace_file import TraceReader

WHAT = {
    "features": "maps after the stem and each Spatial Block, a row a network",
    "raster": "which neuron sent when",
    "rates": "firing rate of every population",
    "gates": "attention gates and the mixed output",
    "curves": "loss, accuracy, learning rate and rates of run folders over epochs",
}
# Which flags a picture has use for; the others are refused.
USES = {
    "features": {"data", "sample", "populations", "channels"},
    "raster": {"data", "sample", "populations"},
    "rates": {"data", "samples"},
    "gates": {"data", "sample"},
    "curves": set[str](),
}
SEVERAL = ("features", "curves")
CHUNK = 64  # samples of which every spike is held at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="WHAT",
        choices=list(WHAT),
        help="; ".join(f"{name}: {text}" for name, text in WHAT.items()),
    )
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        default=[],  # without it, argparse calls SOURCE required where something is missing
        help="an .stf file, which is run on the cpu backend, or a trace of `stformer run -o`; for "
        "curves a run folder; several for features and curves; the packaged model by default",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="the picture; its ending says which: .png, .svg or .pdf",
    )
    add_data(parser)
    parser.add_argument(
        "--sample", metavar="N", type=_from_zero, help="which sample, from 0, the default"
    )
    parser.add_argument(
        "--populations", metavar="A,B", help="raster, features: only these, as `info` lists them"
    )
    parser.add_argument(
        "--channels", metavar="N", type=int, help="features: single channels to draw, 1...8; 1"
    )


def run(args: argparse.Namespace) -> int:
    for flag in ("data", "sample", "samples", "populations", "channels"):
        if getattr(args, flag) is not None and flag not in USES[args.what]:
            raise UsageError(f"stformer plot: --{flag} has no use with {args.what}")
    if len(args.sources) > 1 and args.what not in SEVERAL:
        raise UsageError(f"stformer plot: {args.what} takes one SOURCE, not {len(args.sources)}")
    if not args.sources and args.what == "curves":
        raise UsageError("stformer plot: curves needs a run folder, as `stformer train` writes")
    from stformer.plot import need_matplotlib

    need_matplotlib()
    from stformer.plot import style

    style.check_format(args.output)
    check_output(args.output, *args.sources, args.data)
    figure, plain = _draw(args)
    style.save(figure, args.output)
    emit(args, {"picture": args.what, "file": args.output, **plain}, _text(args, plain))
    return 0


def _draw(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The matplotlib Figure, and what it shows as plain data."""
    from stformer.plot import (
        curves_picture,
        features_picture,
        gates_picture,
        raster_picture,
        rates_picture,
    )

    if args.what == "curves":
        runs = curves_picture.measure(args.sources)
        return curves_picture.draw(runs), {"runs": curves_picture.numbers(runs)}
    if args.what == "rates":
        activity = rates_picture.measure(_all_samples(args))
        return rates_picture.draw(activity), rates_picture.numbers(activity)
    sample = args.sample or 0
    plain: dict[str, Any]
    names = _names(args.populations)
    recordings = [_one_sample(args, source, sample) for source in args.sources or [None]]
    if args.what == "features":
        channels = 1 if args.channels is None else args.channels
        rows = features_picture.measure(
            recordings, sample=sample, channels=channels, populations=names
        )
        plain = {"rows": features_picture.numbers(rows, sample)}
        return features_picture.draw(rows, sample), plain
    (recording,) = recordings
    if args.what == "raster":
        panels = raster_picture.measure(recording, sample=sample, populations=names)
        plain = raster_picture.numbers(panels, recording, sample)
        return raster_picture.draw(panels, recording, sample), plain
    blocks = gates_picture.measure(recording, sample=sample)
    plain = gates_picture.numbers(blocks, recording, sample)
    return gates_picture.draw(blocks, recording, sample), plain


def _names(text: str | None) -> Sequence[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError("stformer plot: --populations names none")
    return names


def _one_sample(args: argparse.Namespace, source: str | None, sample: int) -> Recording:
    """A recording of that sample."""
    from stformer.errors import InputError
    from stformer.plot import record

    with _opened(args, source) as found:
        if not isinstance(found, tuple):
            last = found.samples - 1
            if sample > max(last, 0):
                raise InputError(f"sample {sample} of {source}", "not there", f"0...{last}")
            part = found.part(sample, min(sample + 1, found.samples))
            (recording,) = _traced(source or "", found, [part], sample)
            return recording
        network, data = found
        with Progress(f"running {network.name}"):
            return record(
                network, data.inputs, sample=sample, labels=data.labels, data=data.source
            )


def _all_samples(args: argparse.Namespace) -> Iterator[Recording]:
    """Recordings of all samples asked for, a few at a time."""
    from stformer.plot import record
    from stformer.trace import spans
    from stformer.windows import parts

    source = args.sources[0] if args.sources else None
    with _opened(args, source) as found:
        if not isinstance(found, tuple):
            with Progress("reading", found.samples) as bar:
                yield from _traced(source or "", found, parts(found, bar.of))
            return
        network, data = found
        with Progress(f"running {network.name}", data.samples) as bar:
            for start, stop in spans(data.samples, CHUNK):
                part = {name: a[start:stop] for name, a in data.inputs.items()}
                yield record(network, part, data=data.source)
                bar.update(stop)


@contextmanager
def _opened(
    args: argparse.Namespace, source: str | None
) -> Iterator[tuple[Network, Data] | TraceReader]:
    """A trace file, or a model and the samples that it shall run on."""
    from stformer.errors import InputError
    from stformer.trace_file import reading

    if source is not None and Path(source).is_dir():
        raise InputError(
            source,
            "a folder",
            "a model or a trace",
            f"`stformer compile {source} -o MODEL.stf` makes a model of a run folder",
        )
    with ExitStack() as stack:
        if source is not None and Path(source).suffix != ".stf":
            try:
                file = stack.enter_context(reading(source))
            except InputError as e:
                if e.found != "a network file":
                    raise
            else:
                for flag in ("data", "samples"):
                    if getattr(args, flag) is not None:
                        raise UsageError(f"stformer plot: --{flag} has no use with a trace")
                say(args, f"trace {source}, {file.samples} samples")
                yield file
                return
        asked = argparse.Namespace(**{**vars(args), "model": source})
        network = load_model(asked)
        check_ready(["cpu"], network)
        yield network, load_data(asked, network)


def _traced(
    source: str, file: TraceReader, parts: Iterable[Trace], first: int = 0
) -> Iterator[Recording]:
    """Parts of a trace file, which follow each other from sample `first` on.

    They have the packaged model's name and labels if the file is its trace.
    """
    from stformer import data, storage
    from stformer.plot import Recording
    from stformer.trace import check_inputs, digest_inputs

    name = Path(source).name
    packaged = storage.load()
    ours = packaged.digest() == file.network
    labels = None
    if ours:
        frames, known = data.packaged()
        inputs = check_inputs(packaged, frames[: file.samples])
        labels = known if digest_inputs(inputs) == file.inputs else None
    for part in parts:
        stop = first + part.samples
        yield Recording(
            trace=part,
            name=packaged.name if ours else name,
            network=packaged if ours else None,
            data=name if ours else "",
            labels=None if labels is None else labels[first:stop],
            first=first,
        )
        first = stop


def _from_zero(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: a whole number from 0")
    return value


def _text(args: argparse.Namespace, plain: dict[str, Any]) -> str:
    lines = [f"{args.what} in {args.output}"]
    for row in plain.get("rows", [plain] if "sample" in plain else []):
        label, prediction = row["label"], row["prediction"]
        told = "" if label is None else f", label {label}"
        told += "" if prediction is None else f", predicted {prediction}"
        lines.append(f"{row['network']}: sample {row['sample']}{_of(row)}{told}")
    if args.what == "rates":
        lines.append(f"{plain['network']}: {plain['samples']} samples{_of(plain)}")
        marked = [p for p in plain["populations"] if p["verdict"]]
        lines += [f"{p['verdict']}: {p['name']}, {100 * p['rate']:.3g} %" for p in marked]
    for found in plain.get("runs", []):
        lines.append(f"{found['run']}: {found['epochs']} epochs")
    return "\n".join(lines)


def _of(plain: dict[str, Any]) -> str:
    return f" of {plain['data']}" if plain["data"] else ""
