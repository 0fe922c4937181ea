"""The command line: a table of commands, and what all of them share.

A command is a module of this package with `add_arguments(parser)` and `run(args) -> int`; it is
imported when it is called, and imports what is heavy inside its functions, so that `--help` is
quick. Exit codes: 0 done and positive, 1 done and negative, 2 the user's mistake, 3 something
is not installed; 70 a bug, 130 interrupted, 143 ended by SIGTERM (129 by SIGHUP), 141 nobody
reads our output.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from stformer.errors import StformerError

if TYPE_CHECKING:
    import argparse


class Command(NamedTuple):
    """A command's place in the help.

    Attributes:
        summary: one line.
        example: one call, shown by `stformer COMMAND --help`.
        module: has `add_arguments` and `run`; `stformer.cli.NAME` by default.
    """

    summary: str
    example: str
    module: str = ""


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "the main job on real data: train on digits, compile, run on Lava, prove every spike",
        "stformer demo -o demo",
    ),
    "train": Command(
        "train a recipe's network into a run folder",
        "stformer train digits --set train.epochs=20 -o runs/digits",
    ),
    "eval": Command(
        "accuracy and confusion matrix of a run (float) or model (integer)",
        "stformer eval runs/digits",
    ),
    "compile": Command(
        "fold, quantise, fine-tune and lower a run to an integer model",
        "stformer compile runs/digits -o digits.stf",
    ),
    "ablate": Command(
        "the paper's ablation tables on a recipe: every case, from several seeds",
        "stformer ablate digits --seeds 3 --tables core,sga -o runs/ablate-digits",
    ),
    "info": Command(
        "what is in a model: populations, projections, ranges, digest",
        "stformer info model.stf",
    ),
    "export": Command(
        "write a model for other software (NIR, netx, ONNX), read back before it is done",
        "stformer export --to nir -o digits.nir",
    ),
    "import": Command(
        "make a model of a NIR graph or netx file that other software wrote",
        "stformer import graph.nir --steps 32 -o graph.stf",
        "stformer.cli.imports",
    ),
    "run": Command(
        "run a model on a backend: accuracy, firing rates, speed; saves the trace",
        "stformer run --backend cpu --samples 16 -o cpu.trace",
    ),
    "verify": Command(
        "prove that backends give the same spikes, or show where they do not",
        "stformer verify --backend cpu,lava-sim --state --report proof.html",
    ),
    "map": Command(
        "does a model fit a chip: design rules, cores, chips, and what would fit instead",
        "stformer map --hardware loihi2-oheo-gulch",
    ),
    "energy": Command(
        "what a sample costs: the paper's Eq. 13, the same as an ANN, and estimates for a chip",
        "stformer energy --samples 64 --hardware loihi2-oheo-gulch",
    ),
    "prove": Command(
        "bound every sum, current and membrane over all inputs: overflow ruled out, or where not",
        "stformer prove --samples 16",
    ),
    "bundle": Command(
        "all that a laboratory needs, in one folder bound by SHA-256",
        "stformer bundle --hardware loihi2-kapoho-point -o bundle",
    ),
    "deploy": Command(
        "the laboratory's side: check a bundle, make the script that runs it",
        "stformer deploy bundle --site site.toml -o run.sh",
    ),
    "plot": Command(
        "pictures: feature maps, spike rasters, firing rates, attention gates, training curves",
        "stformer plot features -o features.png",
    ),
    "targets": Command(
        "the backends: which run here, and for the others why not",
        "stformer targets",
    ),
    "datasets": Command(
        "the data sets: which can be loaded here, and for the others what is missing",
        "stformer datasets",
    ),
    "recipes": Command("what can be trained by name", "stformer recipes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code; `argparse`'s SystemExit does not get out.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = False
    try:
        try:
            args = _parse(words)
            if args is None:
                return _flushed(0)
            verbose = bool(args.verbose)
            with _ended_as_interrupted():
                return _flushed(int(import_module(_module(args.command)).run(args)))
        except BrokenPipeError:
            raise
        except OSError as e:  # a device that fails under our hands; files have better messages
            _give_up_output()
            return _fail(f"{e.filename or 'input or output'}: {e.strerror or e}", 2, verbose)
    except StformerError as e:
        return _fail(str(e), e.exit_code, verbose)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    except MemoryError:
        return _fail("out of memory; fewer --samples need less", 2, verbose)
    except KeyboardInterrupt as e:
        number = e.args[0] if e.args else signal.SIGINT
        why = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
        return _fail(why, 128 + number, False)
    except BrokenPipeError:
        _give_up_output()
        return 141
    except Exception as e:
        # Not 1: a bug must not read as "the spikes differ".
        return _fail(f"this is a bug of stformer: {type(e).__name__}: {e}", 70, True)


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """A batch system's SIGTERM and a lost terminal's SIGHUP leave no half file, as Ctrl-C."""

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait
        raise KeyboardInterrupt(signal.Signals(number))

    heeded: list[signal.Signals] = []
    # torchrun ends its processes while they wait for each other, where Python does not get to run.
    if (
        threading.current_thread() is threading.main_thread()
        and os.environ.get("WORLD_SIZE", "1") == "1"
    ):
        both = (signal.SIGTERM, signal.SIGHUP)
        heeded = [s for s in both if signal.getsignal(s) is signal.SIG_DFL]  # not under nohup
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


def _parse(words: list[str]) -> argparse.Namespace | None:
    """The command's arguments, name and words as given; None where help was all."""
    from stformer.cli.parser import UsageError, overview, parser_of, suggestion

    if not words:
        raise UsageError(f"no command; allowed: {', '.join(COMMANDS)}. See `stformer --help`.")
    first, rest = words[0], words[1:]
    if first in ("-h", "--help"):
        print(overview(COMMANDS))
        return None
    if first == "--version":
        from stformer import __version__

        print(f"stformer {__version__}")
        return None
    if first not in COMMANDS:
        known = ["--help", "--version"] if first.startswith("-") else list(COMMANDS)
        what = "flag" if first.startswith("-") else "command"
        raise UsageError(
            f"{what} '{first}' is not known; allowed: {', '.join(known)}."
            + suggestion(first, known)
        )
    args = parser_of(first, COMMANDS[first], _module(first)).parse(rest)
    args.command, args.words = first, words
    return args


def _module(name: str) -> str:
    return COMMANDS[name].module or f"stformer.cli.{name}"


def _flushed(code: int) -> int:
    """A full disk or closed pipe behind standard output shows here, not after the exit code."""
    if sys.stdout is not None:  # as it is where it was closed before we began
        sys.stdout.flush()
    return code


def _give_up_output() -> None:
    """Where standard output fails, Python's own flush at the end would fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int, verbose: bool) -> int:
    from stformer.cli.common import printable

    if verbose:
        import traceback

        traceback.print_exc()
    label = "" if code > 128 else "error: "
    with suppress(OSError):  # nowhere to say it; the exit code still tells
        print(f"stformer: {label}{printable(message)}", file=sys.stderr, flush=True)
    return code
