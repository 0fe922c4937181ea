"""`stformer plot`: its words, sources, files and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stformer import data as datasets
from stformer import storage
from stformer.testing_cli import Call

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def _drawn() -> None:
    pytest.importorskip("matplotlib", reason="stformer[plot] is not installed")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of the packaged model."""
    path = tmp_path_factory.mktemp("plot") / "cpu.trace"
    storage.load().run(datasets.packaged()[0][:4]).save(path)
    return path


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    rows = [{"epoch": i, "loss": 1 / i, "test_accuracy": i / 4} for i in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["plot"], ["WHAT"]),
        (["plot", "histogram", "-o", "x.png"], ["'histogram'", "'raster'"]),
        (["plot", "rates"], ["-o/--output"]),
        (["plot", "rates", "-o", "x.png", "--sample", "1"], ["--sample has no use with rates"]),
        (["plot", "gates", "-o", "x.png", "--samples", "1"], ["--samples has no use with gates"]),
        (["plot", "curves", "a", "-o", "x.png", "--data", "d"], ["--data has no use with curves"]),
        (["plot", "curves", "-o", "x.png"], ["curves needs a run folder"]),
        (["plot", "raster", "a", "b", "-o", "x.png"], ["one SOURCE, not 2"]),
        (["plot", "raster", "-o", "x.png", "--sample", "-1"], ["'-1'", "from 0"]),
    ],
)
def test_mistakes_in_the_words(words: list[str], parts: list[str], call: Call) -> None:
    message = call.fails(*words)
    for part in parts:
        assert part in message, message
    assert "required: WHAT, SOURCE" not in message, "it may be left out"


@pytest.mark.usefixtures("_drawn")
@pytest.mark.parametrize("what", ["features", "raster", "rates", "gates"])
def test_the_packaged_model_is_drawn_without_more(what: str, call: Call, tmp_path: Path) -> None:
    more = ["--samples", "3"] if what == "rates" else []
    more += ["--populations", "stem"] if what == "raster" else []
    plain = call.json("plot", what, "-o", tmp_path / "x.svg", *more)
    assert plain["picture"] == what
    assert plain["file"] == str(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_bytes().startswith(b"<?xml")
    assert [p.name for p in tmp_path.iterdir()] == ["x.svg"]
    if what == "rates":
        found = storage.load().run(datasets.packaged()[0][:3])
        assert plain["samples"] == 3
        for p in plain["populations"]:
            assert p["rate"] == pytest.approx((found[p["name"]] != 0).mean())


@pytest.mark.usefixtures("_drawn")
def test_a_trace_gives_the_picture_of_its_model(call: Call, tmp_path: Path, trace: Path) -> None:
    words = ("--sample", 2, "-o", tmp_path / "x.png")
    a, b = call.json("plot", "gates", trace, *words), call.json("plot", "gates", *words)
    assert a["data"] == "cpu.trace"
    assert a["label"] == int(datasets.packaged()[1][2])
    assert {**a, "data": b["data"]} == b
    code, out, err = call("plot", "gates", trace, *words)
    assert (code, err) == (0, "")
    assert f"gates in {tmp_path / 'x.png'}" in out
    assert "sample 2 of cpu.trace, label " in out
    assert "0...3" in call.fails("plot", "gates", trace, "--sample", 4, "-o", tmp_path / "y.png")
    for flag in (["--data", "digits"], ["--samples", "2"]):
        message = call.fails("plot", "rates", trace, *flag, "-o", tmp_path / "y.png")
        assert "no use with a trace" in message
    assert not (tmp_path / "y.png").exists()


@pytest.mark.usefixtures("_drawn")
def test_a_model_by_any_name_is_run(call: Call, tmp_path: Path, model: Path, data: Path) -> None:
    other = model.rename(tmp_path / "model.hdf5")
    plain = call.json("plot", "rates", other, "--data", data, "-o", tmp_path / "x.png")
    assert plain["samples"] == 5
    assert plain["data"] == "x.npy"
    message = call.fails("plot", "features", other, "--data", data, "-o", tmp_path / "x.png")
    assert "no population 'stem'" in message


@pytest.mark.usefixtures("_drawn")
def test_several_networks_in_rows(call: Call, tmp_path: Path, trace: Path) -> None:
    plain = call.json("plot", "features", storage.PACKAGED, trace, "-o", tmp_path / "x.png")
    first, second = plain["rows"]
    assert (first["network"], first["kernel"]) == ("digits", "5 × 5")
    assert first["stages"] == second["stages"]
    stages = [s["population"] for s in first["stages"]]
    assert stages == ["stem", *(f"spatial.layers.{i}" for i in range(3))]


@pytest.mark.usefixtures("_drawn")
def test_curves(call: Call, tmp_path: Path, run_folder: Path) -> None:
    out = tmp_path / "x.pdf"
    (run,) = call.json("plot", "curves", run_folder, "-o", out)["runs"]
    assert (run["run"], run["epochs"], run["best_test_accuracy"]) == ("digits", 3, 0.75)
    assert "digits: 3 epochs" in call("plot", "curves", run_folder, "-o", out)[1]
    before = out.read_bytes()
    (run_folder / "metrics.jsonl").write_text('{"epoch": 1, "loss":')
    assert "line 1" in call.fails("plot", "curves", run_folder, "-o", out)
    assert out.read_bytes() == before


@pytest.mark.usefixtures("_drawn")
def test_files_that_are_no_source(
    call: Call, tmp_path: Path, run_folder: Path, trace: Path
) -> None:
    out = tmp_path / "x.png"
    text = tmp_path / "text.trace"
    text.write_text("hello " * 100)
    for path in (tmp_path / "gone.stf", tmp_path / "gone", text):
        assert str(path) in call.fails("plot", "rates", path, "-o", out)
    assert "stformer compile" in call.fails("plot", "rates", run_folder, "-o", out)
    assert ".png, .svg, .pdf" in call.fails("plot", "rates", "-o", tmp_path / "x.jpg")
    assert "gone" in call.fails("plot", "rates", "-o", tmp_path / "gone" / "x.png")
    same = trace.with_suffix(".png")
    same.write_bytes(trace.read_bytes())
    assert "the same file" in call.fails("plot", "rates", same, "-o", same)
    assert "names none" in call.fails("plot", "raster", "--populations", ",", "-o", out)
    assert not out.exists()


@pytest.mark.usefixtures("_drawn")
def test_a_sample_that_is_not_there(call: Call, tmp_path: Path) -> None:
    message = call.fails("plot", "raster", "--sample", 360, "-o", tmp_path / "x.png")
    assert "0...359" in message


def test_without_matplotlib(tmp_path: Path) -> None:
    """A hook that finds no matplotlib, as on a machine that lacks it."""
    code = (
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'matplotlib' else real(name, *a)\n"
        "sys.modules['matplotlib'] = None\n"
        "from stformer.cli import main\n"
        "sys.exit(main(['plot', 'rates', '-o', 'x.png']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "To get it: pip install 'stformer[plot]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_drawn")
def test_rates_in_parts_are_rates_of_all(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stformer.cli import plot

    words = ("plot", "rates", "--samples", 5, "-o", tmp_path / "x.png")
    whole = call.json(*words)
    monkeypatch.setattr(plot, "CHUNK", 2)
    assert call.json(*words) == whole
    assert np.isfinite([p["rate"] for p in whole["populations"]]).all()
