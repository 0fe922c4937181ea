"""The front of exports and imports: nothing half-written, nothing unchecked, clear refusals."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from stformer import export, storage
from stformer.errors import InputError, Problem, Unavailable, Unsupported
from stformer.export import MANIFEST, Imported, Note, Options
from stformer.files import atomic_folder
from stformer.network import Network
from stformer.testing import sample_network
from stformer.testing_cli import Call


class Text:
    """A format that writes the digest, into a file or a folder."""

    name = "text"
    reason: str | None = None
    found: tuple[Problem, ...] = ()
    folder = False
    lie = False

    def missing(self) -> str | None:
        return self.reason

    def problems(self, network: Network, options: Options) -> list[Problem]:
        return [] if options.extensions else list(self.found)

    def notes(self, network: Network, options: Options) -> list[Note]:
        return [Note(where=p.name, what="no latency") for p in network.populations]

    def suffix(self, network: Network, options: Options) -> str:
        return "" if self.folder else ".txt"

    def write(self, network: Network, path: Path, options: Options) -> None:
        text = json.dumps({"format": "text", "digest": network.digest()})
        (path / MANIFEST if self.folder else path).write_text(text)
        if self.folder:
            (path / "more").mkdir()
            (path / "more" / "a.bin").write_bytes(b"a")

    def check(self, network: Network, path: Path, options: Options) -> None:
        file = path / MANIFEST if self.folder else path
        assert json.loads(file.read_text())["digest"] == network.digest()
        assert not self.lie, "read back otherwise"


def read_text(path: Path, reading: export.Reading) -> Imported:
    return Imported(network=sample_network("attention"), info={"producer": "a test"})


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Text]]:
    class Mine(Text):
        pass

    monkeypatch.setitem(export.FORMATS, "text", "text_format:Mine")
    monkeypatch.setitem(export.READERS, "text", "text_format:read_text")
    module = SimpleNamespace(Mine=Mine, read_text=read_text)
    monkeypatch.setitem(sys.modules, "text_format", module)
    return Mine


def test_a_file_is_written_checked_and_named(
    text: type[Text], network: Network, tmp_path: Path
) -> None:
    done = export.export("text", network, tmp_path / "a.txt")
    assert (done.format, done.digest) == ("text", network.digest())
    assert list(done.files) == ["a.txt"] and len(done.files["a.txt"]) == 64
    assert [n.where for n in done.notes] == [p.name for p in network.populations]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_written_replaced_and_never_mistaken(
    text: type[Text], network: Network, tmp_path: Path
) -> None:
    text.folder = True
    target = tmp_path / "out"
    done = export.export("text", network, target)
    assert sorted(done.files) == [MANIFEST, "more/a.bin"]
    export.export("text", network, target)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]

    # Others have files of the manifest's name too, and users keep their notes beside ours.
    (target / "src").mkdir()
    (target / "src" / "notes").write_text("mine")
    with pytest.raises(InputError, match="'src/notes', which is not written again"):
        export.export("text", network, target)
    assert (target / "src" / "notes").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]

    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="other things"):
        export.export("text", network, other)
    with pytest.raises(InputError, match="no folder"):
        export.export("text", network, tmp_path / "nowhere" / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file"):
        export.export("text", network, tmp_path / "file")


@pytest.mark.parametrize("folder", [False, True])
def test_what_reads_back_otherwise_is_never_named(
    folder: bool, text: type[Text], network: Network, tmp_path: Path
) -> None:
    text.folder, target = folder, tmp_path / "a"
    export.export("text", network, target)
    before = sorted((str(p), p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    text.lie = True
    with pytest.raises(AssertionError, match="read back otherwise"):
        export.export("text", replace(network, name="other"), target)
    after = sorted((str(p), p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    assert after == before


def test_an_interrupt_between_the_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_folder(tmp_path / "out", "mark") as beside:
        (beside / "mark").write_text("old")
    rename, calls = os.rename, []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out", "mark") as beside:
        (beside / "mark").write_text("new")
    assert (tmp_path / "out" / "mark").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_refusals_come_before_anything_is_written(
    text: type[Text], network: Network, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"'nri'.*text"):
        export.export("nri", network, tmp_path / "a")
    text.found = (Problem(where="population x", why="no such node"),)
    with pytest.raises(Unsupported, match="format 'text' cannot express population x"):
        export.export("text", network, tmp_path / "a")
    export.export("text", network, tmp_path / "b", Options(extensions=True))
    text.reason = "text is not installed; pip install text"
    with pytest.raises(Unavailable, match="To get it: pip install text"):
        export.export("text", network, tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_the_default_name_is_the_networks(
    text: type[Text], network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.export("text", network).path == Path(f"{network.name}.txt")
    text.folder = True
    assert export.export("text", network).path == Path(f"{network.name}.text")


def test_a_backends_file_is_gone_afterwards(text: type[Text], network: Network) -> None:
    with export.exported("text", network) as path:
        assert path.exists()
    assert not path.parent.exists()


def test_export_from_the_command_line(
    text: type[Text], model: Path, call: Call, tmp_path: Path
) -> None:
    out = tmp_path / "a.txt"
    code, printed, err = call("export", model, "--to", "text", "-o", out)
    assert (code, err) == (0, "")
    assert "read back and compared" in printed and "no latency" in printed
    plain = call.json("export", model, "--to", "text", "-o", out)
    assert plain["digest"] == storage.load(model).digest()
    assert plain["files"].keys() == {"a.txt"} and len(plain["notes"]) > 1
    assert "--to nir" in call.fails("export", model, "--to", "text", "--allow-extensions")
    assert "--to onnx" in call.fails("export", model, "--to", "text", "--step")
    assert "another name" in call.fails("export", model, "--to", "text", "-o", model)
    assert "'nri'" in call.fails("export", model, "--to", "nri", "-o", out)


def test_import_from_the_command_line(text: type[Text], call: Call, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "m.stf"
    folder.mkdir()
    (folder / MANIFEST).write_text('{"format": "text"}')
    plain = call.json("import", folder, "-o", out)
    assert plain["digest"] == storage.load(out).digest()
    assert storage.load_document(out).provenance["imported"] == {"producer": "a test"}
    told = call("info", out)[1]
    assert "imported: producer a test\n" in told and "notes: 0, see --json\n" in told
    assert plain["notes"] == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--steps", "0"], ["--steps", "positive"]),
        (["--dt", "nan"], ["--dt", "positive"]),
        (["--dt", "inf"], ["--dt", "positive"]),
        (["--shape", "2,-3"], ["--shape", "whole numbers"]),
        (["--shape", "1,2,3,4"], ["--shape", "1 to 3"]),
    ],
)
def test_import_refuses_bad_flags(
    words: list[str], parts: list[str], call: Call, tmp_path: Path
) -> None:
    message = call.fails("import", tmp_path / "x.nir", "-o", tmp_path / "m.stf", *words)
    assert all(part in message for part in parts), message
    assert not (tmp_path / "m.stf").exists()


def hdf5_of(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file.create_dataset(name, data=value)
    return path


def test_files_are_told_apart_by_content(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'layer' \\(netx\\)"):
        export.read(hdf5_of(tmp_path / "a.nir", something=np.zeros(3)))
    with pytest.raises(InputError, match="nothing at its root"):
        export.read(hdf5_of(tmp_path / "b.net"))
    (tmp_path / "c.nir").write_text("hello")
    with pytest.raises(InputError, match="not HDF5"):
        export.read(tmp_path / "c.nir")
    with pytest.raises(InputError, match=MANIFEST):
        export.read(tmp_path)
    for content in ("[]", "{}", '{"format": "os"}', "{", '{"format": ["nir"]}'):
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(InputError):
            export.read(tmp_path)
    with pytest.raises(InputError, match="existing file"):
        export.read(tmp_path / "none.nir")
