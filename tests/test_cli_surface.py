"""The command line's surface: its commands, their flags, help and examples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stformer.cli import COMMANDS
from stformer.cli.parser import parser_of
from stformer.testing_cli import Call

ROOT = Path(__file__).resolve().parent.parent

# The flags of every command beside --help, --json and --verbose: what scripts rely on.
SURFACE = {
    "demo": {"-o", "--output", "--set", "--lava-samples"},
    "train": {"--set", "-o", "--output", "--resume", "--seed", "--data", "--device", "--steps"},
    "eval": {"--data", "--samples", "--cluster"},
    "compile": {"-o", "--output", "--finetune", "--scales", "--require-proof", "--device"},
    "ablate": {
        "--set",
        "-o",
        "--output",
        "--seeds",
        "--tables",
        "--compile",
        "--float-only",
        "--cluster",
    },
    "info": {"--set"},
    "export": {"--to", "-o", "--output", "--allow-extensions", "--step"},
    "import": {"-o", "--output", "--steps", "--dt", "--shape"},
    "run": {
        "--backend",
        "--lava-models",
        "--data",
        "--samples",
        "-o",
        "--output",
        "--state",
        "--measure",
        "--cluster",
    },
    "verify": {
        "--backend",
        "--against",
        "--lava-models",
        "--data",
        "--samples",
        "--state",
        "--traces",
        "--report",
        "--minimise",
        "-o",
        "--output",
        "--cluster",
    },
    "map": {"--hardware", "--picture"},
    "energy": {"--hardware", "--data", "--samples", "--trace"},
    "prove": {"--data", "--samples", "--any-steps"},
    "bundle": {"--hardware", "--data", "--samples", "--backend", "-o", "--output"},
    "deploy": {"--check", "--seal", "--site", "-o", "--output", "--dry-run"},
    "plot": {"-o", "--output", "--data", "--sample", "--samples", "--populations", "--channels"},
    "targets": set[str](),
    "datasets": set[str](),
    "recipes": set[str](),
}
COMMON = {"-h", "--help", "--json", "-v", "--verbose"}


def test_the_surface_is_what_is_written_here() -> None:
    assert list(COMMANDS) == list(SURFACE)
    for name, command in COMMANDS.items():
        parser = parser_of(name, command, command.module or f"stformer.cli.{name}")
        flags = {f for action in parser._actions for f in action.option_strings}
        assert flags == SURFACE[name] | COMMON, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, call: Call) -> None:
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: stformer {name} ")
    assert f"example: stformer {name}" in out
    for flag in SURFACE[name] | COMMON:
        assert flag in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_legal(name: str) -> None:
    command = COMMANDS[name]
    program, first, *words = command.example.split()
    assert (program, first) == ("stformer", name)
    parser_of(name, command, command.module or f"stformer.cli.{name}").parse(words)


def test_the_overview_lists_every_command(call: Call) -> None:
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    for name, command in COMMANDS.items():
        assert f"  {name} " in out
        assert command.summary in out
    assert call("-h")[1] == out
    assert call("--version")[1].startswith("stformer 0.")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """`import stformer` is counted apart: what the command line adds is argparse and itself."""
    code = (
        "import sys, stformer\n"
        "before = set(sys.modules)\n"
        "from stformer.cli import main\n"
        "assert main(['--help']) == 0\n"
        "ours = {m for m in set(sys.modules) - before if m.startswith('stformer')}\n"
        "assert ours == {'stformer.cli', 'stformer.cli.parser'}, ours\n"
        "assert not {'torch', 'lava', 'h5py', 'sklearn', 'scipy'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
