"""argparse with our messages: one readable line, and the nearest name for one that is unknown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from typing import NoReturn

from stformer.cli import Command
from stformer.errors import StformerError


class UsageError(StformerError):
    """Flags or arguments that no command takes."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process, and suggests flags."""

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else "."
        raise UsageError(f"{self.prog}: {message}{end} See `{self.prog} --help`.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments; every one of them must be known."""
        flags = [f for f in self._option_string_actions if f.startswith("--")]
        for word in takewhile(lambda word: word != "--", words):
            name = word.partition("=")[0]
            if name.startswith("--") and name not in flags:  # before anything that is missing
                self.error(
                    f"flag '{name}' is not known{suggestion(name, flags, '; did you mean')}"
                )
        known, unknown = self.parse_known_args(words)
        if unknown:
            odd = next((word for word in unknown if word.startswith("-")), unknown[0])
            what = "not a flag of it" if odd.startswith("-") else "one argument too many"
            self.error(f"'{odd}' is {what}")
        return known


def suggestion(name: str, known: Iterable[str], start: str = " Did you mean") -> str:
    """ " Did you mean 'verify'?" where something is near enough, else nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{start} '{near[0]}'?" if near else ""


def parser_of(name: str, command: Command, module: str) -> Parser:
    """The parser of one command, with the flags that all commands have."""
    parser = Parser(
        prog=f"stformer {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"example: {command.example}",
        allow_abbrev=False,
    )
    import_module(module).add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say more, and where an error came from"
    )
    return parser


def overview(commands: Mapping[str, Command]) -> str:
    """What `stformer --help` prints."""
    width = max(map(len, commands))
    lines: Sequence[str] = [f"  {name:{width}}  {c.summary}" for name, c in commands.items()]
    return "\n".join(
        (
            "usage: stformer COMMAND [MODEL] [flags]",
            "",
            "Train a spiking transformer, lower it to integers, and prove that what was trained",
            "is what runs. Without MODEL, the packaged one is used.",
            "",
            "commands:",
            *lines,
            "",
            "`stformer COMMAND --help` shows its flags and an example; `stformer --version`.",
            "exit codes: 0 done and positive, 1 done and negative, 2 a mistake in what was",
            "given, 3 something is not installed",
        )
    )
