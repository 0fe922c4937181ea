"""The ablation grid, its runs, and the tables that it prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stformer import ablate, deploy, recipe
from stformer.ablate import CASES, TABLES, Outcome, Outcomes
from stformer.ablation_tables import Size, Spread, Subject, differs, markdown, spread, to_plain
from stformer.cli import ablate as command
from stformer.errors import InputError
from stformer.recipe import Recipe
from stformer.testing_cli import Call

TINY = [
    *("--set", "train.epochs=1", "--set", "train.batch_size=512", "--set", "model.width=8"),
    *("--set", "model.depth=1", "--set", "model.steps=2", "--set", "compile.finetune_epochs=0"),
]

needs_training = pytest.mark.skipif(
    deploy.load("torch").missing() is not None, reason="torch is not installed"
)


class Trainer:
    """Gives an accuracy that tells the recipe it was given; stops before run number `stop`."""

    def __init__(self, *, stop: int = -1, integers: bool = True) -> None:
        self.stop, self.integers = stop, integers
        self.trained: list[tuple[str, int]] = []

    def __call__(self, chosen: Recipe, folder: Path) -> tuple[float, float | None]:
        if len(self.trained) == self.stop:
            raise KeyboardInterrupt
        folder.mkdir(parents=True, exist_ok=True)
        self.trained.append((folder.parent.name, chosen.train.seed))
        kernel = chosen.model["spatial_kernel"]
        assert isinstance(kernel, int)
        floating = (90 + kernel / 10 + chosen.train.seed) / 100
        return floating, floating - 0.01 if self.integers else None


def digits(*overrides: str) -> Recipe:
    return recipe.load("digits", overrides)


def run(out: Path, trainer: Trainer, **more: Any) -> Outcomes:
    wanted: dict[str, Any] = {
        "recipe": digits(),
        "cases": ["baseline", "full"],
        "seeds": 2,
        "integers": True,
        "costs": dict.fromkeys(CASES, 1.0),
        **more,
    }
    return ablate.run(wanted.pop("recipe"), out, trainer, **wanted)


def subject(*tables: str, seeds: int = 2, integers: bool = True) -> Subject:
    return Subject(
        recipe=digits(),
        tables=tables,
        seeds=seeds,
        integers=integers,
        sizes={case: Size(parameters=12345, operations=6_700_000) for case in CASES},
        command="stformer ablate digits",
        versions={"Python": "3.10"},
        machine="2 cores",
    )


def outcomes(**given: list[float]) -> Outcomes:
    """Case -> float accuracies in per cent; the integer ones are one lower."""
    found: Outcomes = {case: {} for case in CASES}
    for case, values in given.items():
        found[case.replace("_", "-")] = {
            i: Outcome(float_accuracy=v / 100, integer_accuracy=(v - 1) / 100, seconds=1)
            for i, v in enumerate(values)
        }
    return found


# --- the grid -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in recipe.available() if not n.endswith("cnn")])
@pytest.mark.parametrize("preset", ["hw", "paper"])
def test_cases_are_as_many_models_in_both_presets(name: str, preset: str) -> None:
    chosen = recipe.load(name, [f"model.preset={preset}"])
    configs = {case: ablate.config_of(chosen, case) for case in CASES}
    assert len(set(configs.values())) == len(CASES)
    full = configs["full"]
    assert full.temporal and full.guided and full.rpe_skip and full.spatial_kernel == 5
    assert configs["st-core"] == replace(full, guided=False)
    assert configs["spatial"] == replace(full, temporal=False)
    assert configs["temporal"] == replace(configs["st-core"], spatial_kernel=3)
    assert configs["no-core"] == replace(configs["spatial"], spatial_kernel=3)
    assert configs["baseline"] == replace(configs["no-core"], rpe_skip=False)
    for kernel in (3, 7, 11, 31):
        assert configs[f"kernel-{kernel}"] == replace(full, spatial_kernel=kernel)


def test_what_is_no_transformer_has_no_parts_to_leave_out() -> None:
    with pytest.raises(InputError, match="a model of kind 'cnn'; allowed: 'stformer'"):
        ablate.config_of(recipe.load("digits-cnn"), "full")


@needs_training
def test_the_baseline_is_what_its_authors_publish() -> None:
    from stformer.counts import count

    base = replace(digits(), model={"variant": "Spikingformer-2-256"})
    counts = count(ablate.config_of(base, "baseline"))
    assert counts.parameters + counts.unused == 2_568_714
    without = count(ablate.config_of(base, "no-core"))
    assert without.parameters == counts.parameters  # a residual has no weights
    assert count(ablate.config_of(base, "spatial")).parameters > counts.parameters


def test_cases_are_shared_between_tables() -> None:
    assert ablate.cases_of(["core", "sga"]) == [
        *("baseline", "spatial", "temporal", "st-core", "no-core", "full"),
    ]
    assert sorted(ablate.cases_of(list(TABLES))) == sorted(CASES)
    baselines = [row for t in TABLES.values() for row in t.rows if row.case == "baseline"]
    assert len(baselines) == 2 and baselines[0] == baselines[1]
    assert TABLES["kernels"].rows[0].paper[:2] == baselines[0].paper[:2]


def test_what_a_recipe_sets_otherwise_stays() -> None:
    base = digits("model.attention=qk", "train.lr=0.5")
    for case in CASES:
        chosen = ablate.recipe_of(base, case, 7)
        assert ablate.config_of(base, case).attention == "qk"
        assert chosen.train == replace(base.train, seed=7)


# --- running --------------------------------------------------------------------------------


def test_every_run_is_done_once_and_the_seeds_in_turn(tmp_path: Path) -> None:
    first, again = Trainer(), Trainer()
    steps: list[ablate.Step] = []
    found = run(tmp_path, first, begin=steps.append)
    assert first.trained == [("baseline", 0), ("full", 0), ("baseline", 1), ("full", 1)]
    assert [(s.done, s.case, s.seed) for s in steps] == [
        *((0, "baseline", 0), (1, "full", 0), (2, "baseline", 1), (3, "full", 1), (4, "", -1)),
    ]
    assert steps[0].remaining is None and steps[1].remaining is not None
    assert found["full"][1].float_accuracy == pytest.approx(0.915)
    assert run(tmp_path, again) == found
    assert not again.trained
    more = Trainer()
    assert set(run(tmp_path, more, seeds=3)["full"]) == {0, 1, 2}
    assert more.trained == [("baseline", 2), ("full", 2)]


def test_an_interrupted_ablation_goes_on(tmp_path: Path) -> None:
    updates: list[int] = []

    def update(found: Outcomes) -> None:
        updates.append(sum(map(len, found.values())))

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Trainer(stop=3), update=update)
    assert updates == [1, 2, 3]
    rest = Trainer()
    found = run(tmp_path, rest, update=update)
    assert rest.trained == [("full", 1)]
    assert updates == [1, 2, 3, 3, 4]
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".tmp"]
    assert {case: set(of) for case, of in found.items()} == {"baseline": {0, 1}, "full": {0, 1}}


def test_a_float_result_is_compiled_when_that_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path, Trainer(integers=False), integers=False)
    second = Trainer()
    assert run(tmp_path, second)["full"][0].integer_accuracy is not None
    assert len(second.trained) == 4
    third = Trainer()  # the integers do not make it less of a float result
    run(tmp_path, third, integers=False)
    assert not third.trained


def test_results_of_another_recipe_are_refused_before_anything_runs(tmp_path: Path) -> None:
    run(tmp_path, Trainer(), cases=["full"], seeds=1)
    trainer = Trainer()
    with pytest.raises(InputError, match=r"another train\.epochs; .*Use another -o"):
        run(tmp_path, trainer, recipe=digits("train.epochs=3"))
    with pytest.raises(InputError, match=r"another model\.width, compile\.finetune_lr;"):
        run(tmp_path, trainer, recipe=digits("model.width=8", "compile.finetune_lr=0.5"))
    assert not trainer.trained


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nonsense", "[" * 100_000, '{"recipe": 1}', '{"recipe": []}']
)
def test_damaged_results_are_named(tmp_path: Path, text: str) -> None:
    run(tmp_path, Trainer(), cases=["full"], seeds=1)
    path = tmp_path / "full" / "seed-0" / ablate.RESULT
    path.write_text(text)
    with pytest.raises(InputError, match="a result of `stformer ablate`") as error:
        run(tmp_path, Trainer(), cases=["full"], seeds=1)
    assert error.value.where == str(path)


def test_what_remains_is_told_by_times_then_costs() -> None:
    done = outcomes(baseline=[90, 91])  # a second each
    costs = {"baseline": 10.0, "full": 25.0}
    assert ablate.remaining(["full", "baseline"], done, costs) == pytest.approx(3.5)
    assert ablate.remaining(["full"], outcomes(), costs) is None
    assert ablate.remaining([], done, costs) == 0


# --- tables ---------------------------------------------------------------------------------


def test_spreads() -> None:
    assert spread([]) is None
    assert spread([0.5]) == Spread(mean=50, std=None, n=1)
    found = spread([0.96, 0.98])
    assert found is not None
    assert str(found) == "97.00 ± 1.41"
    assert str(spread([0.5])) == "50.00"


def test_a_difference_within_the_noise_is_none() -> None:
    def of(mean: float, std: float | None) -> Spread:
        return Spread(mean=mean, std=std, n=1 if std is None else 3)

    assert differs(of(96, 0.5), of(97.5, 0.5))
    assert not differs(of(96, 0.5), of(97, 0.5))
    assert not differs(of(96.1, 0.1), of(96.3, 0.1))  # equal but for rounding
    assert not differs(of(96, 0.5), of(99, None))
    assert not differs(of(96, 0.5), None)


def test_the_table_has_the_papers_numbers_beside_ours() -> None:
    found = outcomes(baseline=[90, 91], st_core=[95, 95.5], full=[90.5, 91.5])
    text = markdown(subject("sga"), found)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == [
        *("", "CIFAR10", "CIFAR100", "CIFAR10-DVS", "DVS128 Gesture"),
        *("digits, float", "digits, integer", "seeds", "parameters", "dense ops"),
    ]
    assert cells[2] == [
        *("baseline", "95.95", "80.37", "80.90", "97.56"),
        *("90.50 ± 0.71", "89.50 ± 0.71", "2", "12,345", "6.7 M"),
    ]
    assert cells[3][5:8] == ["–", "–", "0"]
    assert [row[0] for row in cells[2:]] == ["baseline", "w/o ST-Core", "w/o SGA", "ST-Core + SGA"]
    verdict = "Further from “baseline” than both standard deviations: w/o SGA (float); w/o SGA (in"
    assert verdict in text
    assert "ST-Core + SGA (float)" not in text
    assert "5 epochs" not in text and "60 epochs, 6 of 8 runs finished" in text
    assert "    stformer ablate digits\n" in text


def test_tables_without_integers_or_noise() -> None:
    text = markdown(subject("kernels", seeds=1, integers=False), outcomes(full=[90]))
    assert "integer" not in text
    assert "One seed says nothing of the noise." in text
    row = next(line for line in text.splitlines() if line.startswith("| conv5"))
    assert [c.strip() for c in row.split("|")[2:7]] == ["96.45", "81.45", "–", "–", "90.00"]
    level = markdown(subject("core"), outcomes(baseline=[90, 91], spatial=[90, 91]))
    assert "No row is further from “baseline”" in level


def test_the_json_says_the_same() -> None:
    plain = to_plain(subject("core", "kernels"), outcomes(baseline=[90, 91], spatial=[99, 99]))
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain["tables"]) == ["core", "kernels"]
    assert plain["tables"]["core"]["beyond_noise"] == [
        "+ Spatial Core (float)",
        "+ Spatial Core (integer)",
    ]
    assert plain["tables"]["core"]["rows"][1]["paper"]["CIFAR100"] == 80.36
    case = plain["cases"]["baseline"]
    assert case["float"]["mean"] == pytest.approx(90.5)
    assert case["integer"]["n"] == 2
    assert [r["seed"] for r in case["runs"]] == [0, 1]
    assert case["model"]["spatial_kernel"] == 3
    assert plain["cases"]["temporal"]["float"] is None


# --- the command ----------------------------------------------------------------------------


def fake(monkeypatch: pytest.MonkeyPatch, trainer: Trainer) -> Trainer:
    monkeypatch.setattr(command, "train_one", lambda run, folder, **_: trainer(run, folder))
    return trainer


@needs_training
def test_the_command(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    words = ("ablate", "digits", *TINY, "--seeds", 2, "--tables", "sga", "-o", out)
    fake(monkeypatch, Trainer(stop=5))
    code, printed, err = call(*words)
    assert (code, printed, err) == (130, "", "stformer: interrupted\n")
    assert "5 of 8 runs finished" in (out / "ablation.md").read_text()
    trainer = fake(monkeypatch, Trainer())
    plain = call.json(*words)
    assert len(trainer.trained) == 3
    assert json.loads((out / "ablation.json").read_text()) == plain
    assert list(plain["cases"]) == ["baseline", "no-core", "st-core", "full"]
    assert plain["cases"]["full"]["parameters"] > plain["cases"]["baseline"]["parameters"]
    assert plain["command"].startswith("stformer ablate digits --seeds 2 --set train.epochs=1 ")
    assert plain["versions"]["torch"]
    code, printed, err = call(*words)
    assert (code, err) == (0, "")
    assert printed.startswith((out / "ablation.md").read_text())
    code, printed, err = call(*words, "-v")
    assert (code, err) == (0, "")  # nothing was left to run
    assert len(trainer.trained) == 3


@needs_training
def test_the_default_folder_and_tables(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = fake(monkeypatch, Trainer(integers=False))
    code, printed, err = call("ablate", "digits", *TINY, "--float-only", "-v")
    assert code == 0
    assert "run 2 of 30: spatial, seed 0, " in err and err.count(" left\n") == 29
    assert len(trainer.trained) == 30
    assert "Tables 3 and 4" in printed and "Table 5" in printed and "Table 7" in printed
    assert [p.name for p in tmp_path.glob("runs/*")] == ["ablate-digits"]


@needs_training
def test_mistakes(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = fake(monkeypatch, Trainer())
    out = ("-o", tmp_path / "out")
    message = call.fails("ablate", "digits", "--tables", "core,kernel", *out)
    assert "allowed: core,sga,kernels. Did you mean 'kernels'?" in message
    message = call.fails("ablate", "digits", "--set", "model.temporal=false", *out)
    assert "a key that the ablation sets itself" in message
    assert "Use --seeds" in call.fails("ablate", "digits", "--set", "train.seed=1", *out)
    assert "from 1" in call.fails("ablate", "digits", "--seeds", 0, *out)
    assert "not allowed with" in call.fails("ablate", "digits", "--compile", "--float-only")
    assert "multiple of 8" in call.fails("ablate", "digits", "--set", "model.width=9", *out)
    assert "no such file or recipe" in call.fails("ablate", "nothing", *out)
    (tmp_path / "file").write_text("x")
    message = call.fails("ablate", "digits", *TINY, "-o", tmp_path / "file")
    assert "cannot be made" in message
    assert not trainer.trained
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
@needs_training
def test_real_runs_are_those_of_train_and_compile(call: Call, tmp_path: Path) -> None:
    import torch

    torch.set_num_threads(1)  # on two, such small layers wait for each other
    out = tmp_path / "out"
    words = ("ablate", "digits", *TINY, "--seeds", 1, "--tables", "sga", "-o", out)
    floating = call.json(*words, "--float-only")
    assert floating["cases"]["full"]["integer"] is None
    plain = call.json(*words)  # trains nothing, compiles
    assert plain["cases"]["full"]["float"] == floating["cases"]["full"]["float"]
    keys = [f"model.spatial_kernel={3}", "model.temporal=false", "model.rpe_skip=false"]
    sets = [word for key in keys for word in ("--set", key)]
    call.json("train", "digits", *TINY, *sets, "-o", tmp_path / "run")
    compiled = call.json("compile", tmp_path / "run", "-o", tmp_path / "m.stf")
    (one,) = plain["cases"]["baseline"]["runs"]
    assert one["float_accuracy"] == compiled["float_accuracy"]
    assert one["integer_accuracy"] == compiled["integer_accuracy"]
    for case in plain["cases"]:
        rows = (out / case / "seed-0" / "metrics.jsonl").read_text().splitlines()
        assert len(rows) == 1
