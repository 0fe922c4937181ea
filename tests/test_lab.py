"""The laboratory's script: what a site says is in it, and it runs, all but the chip."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stformer import bundle, storage
from stformer.deploy import bundle as bundles
from stformer.deploy.lab import TEMPLATE, script
from stformer.deploy.site import Loihi, Slurm
from stformer.errors import InputError
from stformer.testing import inputs_for, sample_network
from stformer.testing_cli import Call

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NETWORK = sample_network("attention")
BOARD = Loihi(board="ncl-ext-og-1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "the bundle's"  # a space and a quote
    inputs = inputs_for(NETWORK, 2, np.random.default_rng(0))
    bundle.make(folder, NETWORK, bundle.Samples(inputs=inputs), "loihi2-kapoho-point")
    return folder


def render(made: Path, loihi: Loihi, slurm: Slurm | None = None) -> str:
    return script(made, bundles.check(made), loihi, slurm)


def start(
    text: str, folder: Path, *words: str, path: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, with our commands on the PATH, after those of `path`."""
    (folder / "run.sh").write_text(text)
    whole = os.pathsep.join(filter(None, [path, str(BIN), os.environ["PATH"]]))
    return subprocess.run(
        ["bash", "run.sh", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": whole, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )


def stand_in(folder: Path, name: str, body: str) -> str:
    """A command of that name; gives the folder for the PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / "bin" / name).chmod(0o755)
    return str(folder / "bin")


@pytest.mark.parametrize(
    ("loihi", "slurm"),
    [
        (BOARD, None),
        (Loihi(partition="kp"), None),
        (Loihi(host="ethernet", address="10.0.0.2"), Slurm(partition="lab", account="me")),
        (Loihi(backend="lava-sim"), Slurm(directives=("--exclusive",))),
    ],
)
def test_scripts_are_clean(made: Path, tmp_path: Path, loihi: Loihi, slurm: Slurm | None) -> None:
    checker = shutil.which("shellcheck", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    (tmp_path / "run.sh").write_text(render(made, loihi, slurm))
    done = subprocess.run([checker, tmp_path / "run.sh", TEMPLATE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_a_site_says_is_in_the_script(made: Path) -> None:
    text = render(made, BOARD)
    assert "export BOARD=ncl-ext-og-1\n" in text and "export LOIHI_GEN=N3B3\n" in text
    assert "PARTITION=" not in text.split("set -euo")[1].split("DRY=")[0]
    assert "#SBATCH" not in text and "srun" not in text
    text = render(
        made,
        Loihi(host="ethernet", address="10.0.0.2", generation="N3C1", timeout=60, output_delay=1),
        Slurm(partition="lab", walltime="00:20:00", memory="8GiB"),
    )
    assert "export NXSDKHOST=10.0.0.2\n" in text and "export LOIHI_GEN=N3C1\n" in text
    assert "#SBATCH --partition=lab\n" in text and "#SBATCH --time=00:20:00\n" in text
    assert "#SBATCH --mem=8G\n" in text and "TIMEOUT=60\n" in text
    assert "export STFORMER_OUTPUT_DELAY=1\n" in text
    assert f"SEAL={bundles.read_manifest(made).seal}\n" in text


@pytest.mark.parametrize(
    ("loihi", "slurm", "part"),
    [
        (Loihi(), None, "neither partition nor board"),
        (Loihi(board="a", partition="b"), None, "both partition and board"),
        (Loihi(host="ethernet"), None, "no address"),
        (BOARD, Slurm(), "run the script with bash"),
    ],
)
def test_sites_that_contradict_themselves(
    made: Path, loihi: Loihi, slurm: Slurm | None, part: str
) -> None:
    with pytest.raises(InputError, match=part):
        render(made, loihi, slurm)


def test_a_dry_run_prints_every_command_and_does_nothing(made: Path, tmp_path: Path) -> None:
    done = start(render(made, BOARD), tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    for part in ("sinfo -N", "deploy", "map", "verify", "lava-sim", "loihi2", "power", "activity"):
        assert part in done.stdout, part
    assert not (tmp_path / f"results-{NETWORK.name}").exists()


def test_without_a_chip_the_script_says_so(made: Path, tmp_path: Path) -> None:
    path = stand_in(tmp_path, "sinfo", "echo 'NODELIST NODES PARTITION STATE'")
    done = start(render(made, BOARD), tmp_path, "out", path=path)
    assert done.returncode == 3, done.stderr
    assert "loihi2" in (tmp_path / "out" / "backend.json").read_text()
    assert not (tmp_path / "out" / "bundle.json").exists()


def test_what_is_wrong_with_the_call_is_no_difference(made: Path, tmp_path: Path) -> None:
    text = render(made, Loihi(backend="lava-sim"))
    for words in (["--help"], ["--dry-run", "--now"], ["a", "b"]):
        done = start(text, tmp_path, *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert "usage: bash SCRIPT [--dry-run] [RESULTS]" in done.stderr
    done = start(text, tmp_path, "run.sh/out")
    assert done.returncode == 2 and "run.sh/out: cannot be written" in done.stderr


@pytest.mark.slow
def test_a_rehearsal_runs_all_but_the_chip(made: Path, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("lava", reason="Lava is not installed")
    site = tmp_path / "site.toml"
    site.write_text('[loihi]\nbackend = "lava-sim"\n[slurm]\npartition = "lab"\n')
    call("deploy", made, "--site", site, "-o", tmp_path / "job.sh")
    # sbatch keeps a copy of the script, and runs it where it was given.
    path = stand_in(tmp_path, "sbatch", 'cp "$1" copy.sh; shift; exec bash copy.sh "$@"')
    done = start("sbatch job.sh results", tmp_path, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results"
    assert json.loads((results / "chip.json").read_text())["proven"] is True
    assert json.loads((results / "map.json").read_text())["fits"] is True
    assert "every spike is equal" in done.stdout and (results / "report.html").is_file()
    assert "(environment)" not in done.stdout and (results / "environment.txt").is_file()
    again = start("sbatch job.sh results", tmp_path, path=path)
    assert again.returncode == 0 and again.stdout.count("was done before") == 7, again.stdout


def test_differing_spikes_and_broken_bundles(made: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    text = script(broken, bundles.check(broken), Loihi(backend="cpu"))
    storage.save(broken / bundles.NETWORK, sample_network("conv"))
    done = start(text, tmp_path, "out")
    assert done.returncode == 2, done.stdout
    assert "network.stf: changed" in (tmp_path / "out" / "bundle.log").read_text()
    assert not (tmp_path / "out" / "bundle.done").exists()
