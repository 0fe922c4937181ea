"""Bundles: the same bytes twice, every byte bound, whatever is wrong is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stformer import bundle, storage
from stformer.deploy import bundle as bundles
from stformer.errors import InputError
from stformer.testing import inputs_for, sample_network
from stformer.testing_cli import Call
from stformer.trace import Trace

NETWORK = sample_network("attention")
INPUTS = inputs_for(NETWORK, 3, np.random.default_rng(0))
TARGET = "loihi2-kapoho-point"


def make(folder: Path) -> bundles.Manifest:
    return bundle.make(folder, NETWORK, bundle.Samples(inputs=INPUTS), TARGET)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "made"
    make(folder)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copied")
    return tmp_path / "copied"


def test_what_a_bundle_holds(made: Path) -> None:
    manifest = bundles.check(made)
    assert storage.load(made / bundles.NETWORK).digest() == NETWORK.digest() == manifest.network
    golden = Trace.load(made / bundles.GOLDEN)
    assert golden.backend == "reference" and golden.samples == manifest.samples == 3
    with np.load(made / bundles.SAMPLES) as samples:
        assert np.array_equal(samples["inputs"], *INPUTS.values())
    proof = json.loads((made / "proof.json").read_text())
    assert [r["proven"] for r in proof["reports"]] == [True] == [proof["proven"]]
    assert json.loads((made / "mapping.json").read_text())["fits"] is True
    assert json.loads((made / "overflow.json").read_text())["proven"] is True
    from stformer.export import FORMATS

    for name in FORMATS:
        assert name in manifest.left_out or any(
            f.startswith("exports/network") and name in f for f in manifest.files
        ), name


def test_the_same_arguments_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    manifest = make(tmp_path / "again")
    assert manifest == bundles.read_manifest(made)
    for name in (bundles.MANIFEST, *manifest.files):
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@given(st.data())
def test_any_changed_byte_is_named(made: Path, data: st.DataObject) -> None:
    files = (bundles.MANIFEST, *bundles.read_manifest(made).files)
    path = made / data.draw(st.sampled_from(files))
    before = path.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda b: b != before[at]))
    path.write_bytes(before[:at] + bytes([other]) + before[at + 1 :])
    try:
        with pytest.raises(InputError, match=path.name):
            bundles.check(made)
    finally:
        path.write_bytes(before)


def test_nothing_compared_is_no_proof(tmp_path: Path) -> None:
    samples = bundle.Samples(inputs=INPUTS)
    bundle.make(tmp_path / "bare", NETWORK, samples, TARGET, backends=())
    assert json.loads((tmp_path / "bare" / "proof.json").read_text())["proven"] is False


def test_files_that_are_missing_or_more(copied: Path) -> None:
    (copied / "exports" / "note.txt").write_text("hello")
    with pytest.raises(InputError, match=r"note\.txt: not of the bundle"):
        bundles.check(copied)
    (copied / "exports" / "note.txt").unlink()
    (copied / "proof.json").unlink()
    with pytest.raises(InputError, match=r"proof\.json: no such file"):
        bundles.check(copied)
    (copied / "proof.json").symlink_to("manifest.json")
    with pytest.raises(InputError, match="a link"):
        bundles.check(copied)


def remade(folder: Path, **changes: object) -> None:
    """The manifest with other values and a seal that fits them."""
    from dataclasses import replace

    manifest = replace(bundles.read_manifest(folder), **changes)  # type: ignore[arg-type]
    (folder / bundles.MANIFEST).write_text(replace(manifest, seal=manifest.sealed()).text())


def test_a_manifest_made_anew_needs_the_seal(copied: Path) -> None:
    seal = bundles.check(copied).seal
    (copied / "README.md").write_text("pip install evil")
    files = bundles.read_manifest(copied).files
    remade(copied, files=files | {"README.md": bundles.sha256(copied / "README.md")})
    bundles.check(copied)
    with pytest.raises(InputError, match="another bundle"):
        bundles.check(copied, seal)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "a/../../b", ".x", "a\\b", ""])
def test_names_that_lead_elsewhere(copied: Path, name: str) -> None:
    files = bundles.read_manifest(copied).files
    remade(copied, files=files | {name: "0" * 64})
    with pytest.raises(InputError, match="names of files in the bundle"):
        bundles.check(copied)


def test_parts_of_two_bundles(copied: Path, tmp_path: Path) -> None:
    other = sample_network("conv")
    storage.save(copied / bundles.NETWORK, other)
    files = bundles.read_manifest(copied).files
    files |= {bundles.NETWORK: bundles.sha256(copied / bundles.NETWORK)}
    remade(copied, files=files)
    with pytest.raises(InputError, match=rf"{bundles.NETWORK}: digest"):
        bundles.check(copied)
    remade(copied, files=files, network=other.digest())
    with pytest.raises(InputError, match=rf"{bundles.GOLDEN}: digest"):
        bundles.check(copied)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "JSON"),
        ("{}", "no manifest of a bundle"),
        ('{"format": "stformer-bundle"}', "version None"),
        ('{"format": "stformer-bundle", "version": 1}', "missing or unknown"),
        ("[" * 100_000, "nesting"),
        ("\xff", "manifest"),
    ],
)
def test_manifests_that_are_none(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / bundles.MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=part):
        bundles.check(tmp_path)


def test_an_interrupted_bundle_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "_readme", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_the_commands(call: Call, tmp_path: Path) -> None:
    model, data, out = tmp_path / "m.stf", tmp_path / "d.npz", tmp_path / "b"
    storage.save(model, NETWORK)
    np.savez(data, inputs=next(iter(INPUTS.values())))
    words = ("bundle", model, "--data", data, "--samples", "2")
    plain = call.json(*words, "-o", out)
    assert plain["samples"] == 2 and plain["network"] == NETWORK.digest()
    checked = call.json("deploy", out, "--check", "--seal", plain["seal"])
    assert checked["checked"] is True and checked["files"] == plain["files"]
    assert "another bundle" in call.fails("deploy", out, "--check", "--seal", "0" * 64)
    assert "manifest.json" in call.fails("deploy", tmp_path, "--check")
    assert "--check" in call.fails("deploy", out)
    assert "leave the other flags out" in call.fails("deploy", out, "--check", "--dry-run")
    assert "-o SCRIPT" in call.fails("deploy", out, "--site", "s.toml")
    inside = call.fails("deploy", out, "--site", out / "site.toml", "-o", out / "run.sh")
    assert "a place outside of it" in inside and not (out / "run.sh").exists()
    assert "names none" in call.fails(*words, "-o", out, "--backend", ",")
    assert "'nowhere'" in call.fails(*words, "-o", out, "--hardware", "nowhere")
    assert "other things" in call.fails(*words, "-o", tmp_path)


def test_checking_needs_no_torch(made: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
        "from stformer.cli import main; raise SystemExit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "deploy", str(made), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
