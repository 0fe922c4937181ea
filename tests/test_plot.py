"""Pictures: what they measure, which files they give, and what cannot be drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="stformer[plot] is not installed")

from stformer import data, parts, plot, storage
from stformer.errors import InputError, Unavailable
from stformer.plot import (
    Recording,
    curves_picture,
    features_picture,
    gates_picture,
    metrics,
    raster_picture,
    rates_picture,
    recording,
    style,
)
from stformer.testing import inputs_for, sample_network
from stformer.trace import Trace

STEPS = 3


def trace_of(**spikes: Any) -> Trace:
    arrays = {name.replace("__", "."): a for name, a in spikes.items()}
    return Trace(network="0" * 64, inputs="1" * 64, backend="lab", spikes=arrays)


def spikes(*shape: int, seed: int = 0, samples: int = 2, share: float = 0.3) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.random((samples, STEPS, *shape)) < share).astype(np.uint8)


@pytest.fixture
def seen() -> Recording:
    """A trace without its network, of the shape of an STFormer with both kinds of gates."""
    values = np.random.default_rng(9).integers(-5, 6, (2, STEPS, 4, 4, 4)).astype(np.int32)
    arrays = {
        "input": spikes(1, 8, 8, share=0.5),
        "stem": spikes(2, 8, 8, seed=1),
        "spatial.layers.0": spikes(4, 4, 4, seed=2),
        "spatial.layers.1": values,
        "rpe@0+1": spikes(4, 4, 4, seed=2),
        "blocks.0.attention.gate": spikes(4, 1, 1, seed=3),
        "blocks.0.attention.mix": spikes(4, 4, 4, seed=4, share=0.1),
        "blocks.1.attention.gate": spikes(2, 4, 4, seed=5),
        "blocks.1.attention.mix": spikes(4, 4, 4, seed=6, share=0.0),
        "head": np.arange(2 * STEPS * 5, dtype=np.int32).reshape(2, STEPS, 5, 1, 1),
    }
    return Recording(trace=trace_of(**arrays), name="lab", labels=np.array([4, 1]))


@pytest.fixture(scope="module")
def packaged() -> Recording:
    inputs, labels = data.packaged()
    return plot.record(storage.load(), inputs, sample=5, labels=labels, data="digits")


# --- what is measured ---------------------------------------------------------------------------


def test_a_recording_of_one_sample_keeps_its_number(packaged: Recording) -> None:
    inputs, labels = data.packaged()
    assert packaged.trace.samples == 1
    assert (packaged.one("input", 5) == inputs[5]).all()
    assert recording.label_of(packaged, 5) == labels[5]
    whole = plot.record(storage.load(), inputs[:8], labels=labels)
    assert (whole.one("stem", 5) == packaged.one("stem", 5)).all()
    assert recording.prediction_of(packaged, 5) == recording.prediction_of(whole, 5)
    for wrong in (4, 6):
        with pytest.raises(InputError, match=r"sample .*5\.\.\.5"):
            packaged.at(wrong)
    with pytest.raises(InputError, match=r"0\.\.\.359"):
        plot.record(storage.load(), inputs, sample=360)


def test_a_trace_of_another_network_is_refused(packaged: Recording) -> None:
    with pytest.raises(InputError, match="made by network"):
        Recording(trace=packaged.trace, name="x", network=sample_network("attention"))
    with pytest.raises(InputError, match="no population"):
        Recording(trace=trace_of(), name="x")


def test_roles_are_known_with_and_without_the_network(packaged: Recording) -> None:
    alone = Recording(trace=packaged.trace, name="t", first=5)
    for role in (recording.relays, recording.inputs_of, recording.readouts):
        assert role(packaged)
        assert role(packaged) == role(alone)
    assert not {"head", "rpe@1"} & set(recording.spiking(packaged))
    assert recording.prediction_of(alone, 5) == recording.prediction_of(packaged, 5)


def test_numbers_that_are_maps_are_no_logits(seen: Recording) -> None:
    fewer = {n: a for n, a in seen.trace.spikes.items() if n in ("input", "spatial.layers.1")}
    maps = Recording(trace=trace_of(**fewer), name="maps")
    assert recording.prediction_of(maps, 0) is None
    assert recording.answer(maps, 0) == ""
    assert recording.spiking(maps) == list(fewer)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("spatial.layers.2", "spatial"),
        ("blocks.11.attention.gate", "attention"),
        ("blocks.0.mlp2", "MLP"),
        ("blocks.0.join1", "residual"),
        ("temporal_x", "temporal"),
        ("stemless", "other"),
        ("", "other"),
    ],
)
def test_parts(name: str, part: str) -> None:
    assert parts.part_of(name) == part
    assert set(parts.PARTS) == set(style.PART_COLOURS)


def test_feature_maps_are_rates(seen: Recording) -> None:
    (row,) = features_picture.measure([seen], sample=1, channels=2)
    assert [s.population for s in row.stages] == ["stem", "spatial.layers.0", "spatial.layers.1"]
    stem = seen.trace["stem"][1]
    assert np.allclose(row.stages[0].mean, stem.mean(axis=(0, 1)))
    for stage in row.stages:
        rates = (seen.trace[stage.population][1] != 0).mean(axis=0)
        assert np.allclose(stage.maps, rates[list(stage.channels)])
        contrast = rates.var(axis=(1, 2))
        assert list(stage.channels) == sorted(range(len(rates)), key=lambda c: -contrast[c])[:2]
    assert [s.graded for s in row.stages] == [False, False, True]
    (plain,) = features_picture.numbers([row], 1)
    assert (plain["label"], plain["prediction"]) == (1, 4)


def test_the_kernel_comes_from_the_network(packaged: Recording, seen: Recording) -> None:
    assert features_picture.kernel_of(packaged) == "5 × 5"
    assert features_picture.kernel_of(seen) == ""


def test_rates_do_not_depend_on_the_parts_they_are_counted_in() -> None:
    network, (inputs, _) = storage.load(), data.packaged()
    whole = rates_picture.measure([plot.record(network, inputs[:6])])
    parts = (plot.record(network, inputs[i : i + 2]) for i in (0, 2, 4))
    assert rates_picture.measure(parts) == whole
    trace = network.run(inputs[:6])
    rates = {r.population: r for r in whole.rates}
    assert rates["rpe"].rate == pytest.approx(trace["rpe"].mean())
    assert rates["rpe"].silent == pytest.approx(1 - trace["rpe"].any(axis=(0, 1)).mean())
    assert rates["input"].graded and rates["input"].input
    assert list(rates) == [n for n in trace.populations if "@" not in n and n != "head"]


def test_dead_and_saturated_populations_are_marked() -> None:
    trace = trace_of(
        input=spikes(4, share=0.0),
        dead=spikes(4, share=0.0),
        fine=spikes(400, share=0.3),
        hot=spikes(400, share=0.9),
        numbers=np.ones((2, STEPS, 4), np.int32),
        last=spikes(4),
    )
    activity = rates_picture.measure([Recording(trace=trace, name="x")])
    verdicts = {r.population: r.verdict for r in activity.rates}
    assert verdicts["dead"] == "dead"
    assert verdicts["hot"] == "saturated"
    assert {verdicts[n] for n in ("input", "fine", "numbers")} == {""}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 384, 3072, 100_003])
def test_neurons_are_drawn_from_every_part(count: int) -> None:
    shown = raster_picture.evenly(count, 64)
    assert len(shown) == min(count, 64)
    assert (np.diff(shown) > 0).all() if count > 1 else (shown == 0).all()
    if count >= 64:
        edges = [count * i // 64 for i in range(65)]
        found = np.histogram(shown, bins=[*edges[:-1], count])[0]
        assert (found == 1).all(), "not one of each part"
    if count == 3072:  # 192 channels of 16 tokens
        assert len(set(shown % 16)) == 16, "always the same tokens"


def test_a_raster_says_what_it_leaves_out(packaged: Recording) -> None:
    panels = {p.population: p for p in raster_picture.measure(packaged, sample=5)}
    assert "input" not in panels and "head" not in panels
    stem = panels["stem"]
    flat = packaged.trace["stem"][0].reshape(4, -1)
    assert (stem.values == flat[:, stem.shown].T).all()
    assert stem.rate == pytest.approx(flat.mean())
    figure = raster_picture.draw([stem], packaged, 5)
    assert figure.axes[0].get_ylabel() == "64 of 384 neurons"


def test_gates_of_both_kinds(seen: Recording) -> None:
    channels, tokens = gates_picture.measure(seen, sample=1)
    assert not channels.per_token and tokens.per_token
    assert (channels.gate == seen.trace["blocks.0.attention.gate"][1, :, :, 0, 0]).all()
    assert np.allclose(tokens.gate, seen.trace["blocks.1.attention.gate"][1].mean(axis=0))
    assert np.allclose(channels.mix, seen.trace["blocks.0.attention.mix"][1].mean(axis=(0, 1)))
    assert not tokens.mix.any()


# --- metrics ------------------------------------------------------------------------------------


def run_folder(folder: Path, *rows: object) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_curves_take_rows_old_and_new(tmp_path: Path) -> None:
    new = {"epoch": 2, "loss": 1, "lr": 1e-3, "validation_accuracy": 0.5, "unknown": [1]}
    folder = run_folder(
        tmp_path / "r",
        {"epoch": 1, "epochs": 3, "loss": 2.0, "test_accuracy": 0.25, "seconds": 1.0},
        new | {"rates": {"stem": 0.1, "head": 0.2}, "test_accuracy": None},
        {"epoch": 5, "rates": None},
    )
    run = metrics.read_metrics(folder)
    assert run.line("loss") == ([1, 2], [2.0, 1.0])
    assert run.line("test_accuracy") == ([1], [0.25])
    assert run.rate("stem") == ([2], [0.1])
    assert run.populations == ["stem", "head"]
    titles = {t.get_text() for t in plot.curves(folder).texts}
    assert {"loss (training)", "accuracy", "learning rate", "firing rates"} <= titles
    old = run_folder(tmp_path / "old", {"epoch": 1, "loss": 2.0})
    titles = {t.get_text() for t in plot.curves(old).texts}
    assert "loss (training)" in titles
    assert not {"accuracy", "learning rate", "firing rates"} & titles
    both = plot.curves(folder, old)
    assert {"r", "old"} <= {t.get_text() for t in both.texts}
    (plain, _) = curves_picture.numbers(curves_picture.measure([folder, old]))
    assert (plain["best_test_accuracy"], plain["epochs"]) == (0.25, 5)


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([], "0 epochs"),
        (["{"], "line 1: no JSON"),
        (["[" * 100_000], "no JSON"),
        (["[1]"], "a list"),
        ([{"loss": 1.0}], "epoch None"),
        ([{"epoch": True}], "epoch True"),
        ([{"epoch": 2}, {"epoch": 2}], "line 2: epoch 2 after 2"),
        ([{"epoch": 1, "loss": "low"}], "loss = 'low'"),
        (['{"epoch": 1, "loss": NaN}'], "loss = nan"),
        ([{"epoch": 1, "test_accuracy": 1.5}], "test_accuracy = 1.5"),
        ([{"epoch": 1, "rates": [0.1]}], "rates is a list"),
        ([{"epoch": 1, "rates": {"stem": -0.1}}], "rate of 'stem'"),
        ([{"epoch": 1, "loss": 10**400}], "loss = "),
        ([{"epoch": 1}], "nothing but epochs"),
    ],
)
def test_broken_metrics(tmp_path: Path, rows: list[object], part: str) -> None:
    with pytest.raises(InputError) as caught:
        plot.curves(run_folder(tmp_path / "r", *rows))
    assert part in str(caught.value)


def test_folders_without_metrics(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metrics\.jsonl"):
        plot.curves(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        plot.curves(tmp_path / "gone")
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no text"):
        plot.curves(tmp_path)
    with pytest.raises(InputError, match=r"9 run folders.*1\.\.\.8"):
        plot.curves(*[tmp_path] * 9)


# --- files --------------------------------------------------------------------------------------


def every_picture(seen: Recording, folder: Path) -> dict[str, Any]:
    run = run_folder(folder / "r", {"epoch": 1, "loss": 2.0, "rates": {"stem": 0.7}})
    return {
        "features": lambda: plot.features(seen, sample=1),
        "raster": lambda: plot.raster(seen, populations=["stem", "head"]),
        "rates": lambda: plot.rates(seen),
        "gates": lambda: plot.gates(seen, sample=1),
        "curves": lambda: plot.curves(run, run),
    }


MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("what", ["features", "raster", "rates", "gates", "curves"])
def test_the_same_picture_is_the_same_bytes(what: str, seen: Recording, tmp_path: Path) -> None:
    import matplotlib as mpl

    draw = every_picture(seen, tmp_path)[what]
    for ending in style.FORMATS if what == "rates" else ("svg",):
        a, b = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
        plot.save(draw(), a)
        with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
            plot.save(draw(), b)
        found = a.read_bytes()
        assert found == b.read_bytes(), "a user's own settings, or chance, came in"
        assert found.startswith(MAGIC[ending])
        assert b"CreationDate" not in found and b"dc:date" not in found


@pytest.mark.parametrize("what", ["features", "raster", "rates", "gates", "curves"])
def test_all_stays_inside_the_figure(what: str, seen: Recording, tmp_path: Path) -> None:
    assert_inside(every_picture(seen, tmp_path)[what]())


@pytest.mark.slow
def test_all_of_the_packaged_model_stays_inside(packaged: Recording) -> None:
    assert_inside(plot.features(packaged, packaged, sample=5, channels=3))
    assert_inside(plot.raster(packaged, sample=5))
    assert_inside(plot.rates(packaged))
    assert_inside(plot.gates(packaged, sample=5))


def assert_inside(figure: Any) -> None:
    with style.sheet():
        box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_odd_names_are_drawn(tmp_path: Path) -> None:
    name = "a$b_{\\frac" + "\x1b[31m" + "字" + "x" * 300
    trace = trace_of(**{"input": spikes(1, 4, 4), name: spikes(2, 4, 4), "last": spikes(2)})
    odd = Recording(trace=trace, name=name, data=name)
    for figure in (plot.rates(odd), plot.raster(odd), plot.features(odd, populations=[name])):
        plot.save(figure, tmp_path / "odd.svg")
        assert b"\x1b" not in (tmp_path / "odd.svg").read_bytes()


def test_nothing_is_written_where_it_must_not(seen: Recording, tmp_path: Path) -> None:
    figure = plot.rates(seen)
    for name in ("x.jpg", "x", "x.png.gz"):
        with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
            plot.save(figure, tmp_path / name)
    with pytest.raises(InputError, match="gone"):
        plot.save(figure, tmp_path / "gone" / "x.png")
    assert not list(tmp_path.iterdir())


# --- what cannot be drawn -----------------------------------------------------------------------


def test_networks_that_lack_what_a_picture_shows() -> None:
    network = sample_network("dense")
    plain = plot.record(network, inputs_for(network, 2, np.random.default_rng(0)))
    with pytest.raises(InputError, match="no population 'stem'"):
        plot.features(plain)
    with pytest.raises(InputError, match="no populations 'blocks"):
        plot.gates(plain)
    assert plot.rates(plain) and plot.raster(plain)


def test_populations_and_stages_that_do_not_fit(seen: Recording) -> None:
    with pytest.raises(InputError, match="no population 'x'"):
        plot.raster(seen, populations=["x"])
    with pytest.raises(InputError, match="maps"):
        plot.features(seen, populations=["blocks.0.attention.gate"])
    with pytest.raises(InputError, match=r"1\.\.\.8"):
        plot.features(seen, channels=9)
    with pytest.raises(InputError, match="sample 2"):
        plot.gates(seen, sample=2)
    fewer = {n: a for n, a in seen.trace.spikes.items() if n != "stem"}
    other = Recording(trace=trace_of(**fewer), name="other")
    with pytest.raises(InputError, match="those of lab"):
        plot.features(seen, other)
    with pytest.raises(InputError, match="0 recordings"):
        plot.features()


def test_inputs_of_other_kinds(seen: Recording) -> None:
    for channels in (2, 3, 5):
        arrays = dict(seen.trace.spikes) | {"input": spikes(channels, 8, 8)}
        assert plot.features(Recording(trace=trace_of(**arrays), name="x"))
    arrays = dict(seen.trace.spikes) | {"input": spikes(7)}
    flat = Recording(trace=trace_of(**arrays), name="x")
    with pytest.raises(InputError, match="inputs that are images"):
        plot.features(flat)
    assert plot.gates(flat)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"pip install 'stformer\[plot\]'"):
        _ = plot.features
    assert plot.Recording is Recording
    with pytest.raises(AttributeError):
        _ = plot.histogram  # type: ignore[attr-defined]
