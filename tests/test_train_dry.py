"""Where a training runs: devices, and dry runs of real recipes on random frames."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from stformer import data, recipe, train  # noqa: E402
from stformer.errors import InputError, Unavailable  # noqa: E402
from stformer.lower import lower_stformer  # noqa: E402
from stformer.model import quantise  # noqa: E402
from stformer.training.dry import dry_run  # noqa: E402
from stformer.training.memory import keep_freed  # noqa: E402
from stformer.training.processes import find_device  # noqa: E402

TINY = [
    *("train.epochs=2", "train.batch_size=32", "train.checkpoint_minutes=0"),
    *("model.width=8", "model.depth=1", "model.steps=2"),
]


def tiny(*more: str) -> recipe.Recipe:
    return recipe.load("digits", [*TINY, *more])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device().type == find_device("cpu").type == "cpu"
    with pytest.raises(Unavailable, match="no GPU"):
        find_device("cuda")
    for name in ("tpu", "mps", "cuda:x"):
        with pytest.raises(InputError, match="cpu, cuda, cuda:N"):
            find_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device(local_rank=1) == torch.device("cuda", 1)
    assert find_device("cuda:0", local_rank=1) == torch.device("cuda", 0)
    with pytest.raises(InputError, match=r"GPU number 2; allowed: 0\.\.\.1"):
        find_device(local_rank=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_training_goes_on_and_lowering_works(tmp_path: Path) -> None:
    run = train.train(tiny("train.amp=bf16", "train.channels_last=true"), tmp_path, device="cuda")
    quantise(run.model)
    on_cpu = train.predict(run.model, data.load("digits", 2)["test"])
    run.model.cuda()
    assert torch.equal(train.predict(run.model, data.load("digits", 2)["test"]), on_cpu)
    digest = lower_stformer(run.model).digest()
    assert next(run.model.parameters()).is_cuda
    assert digest == lower_stformer(run.model.cpu()).digest()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_a_step_is_kept_for_the_next() -> None:
    assert keep_freed()


def test_a_dry_run_measures_and_leaves_nothing(tmp_path: Path) -> None:
    speed, first = dry_run(tiny("train.flip=0.5", "train.validation=0.1"), steps=3, device="cpu")
    assert first and speed.steps == 3 and speed.samples == 96
    assert speed.samples_per_second == pytest.approx(96 / speed.seconds)
    assert speed.peak_bytes > 2**26 and speed.memory == "process"
    assert not list(tmp_path.iterdir())


# (shape, largest value, classes), where the data set is not in the registry
SETS: dict[str, tuple[tuple[int, int, int], int, int]] = {
    "cifar10": ((3, 32, 32), 255, 10),
    "cifar100": ((3, 32, 32), 255, 100),
    "cifar10dvs": ((2, 128, 128), 15, 10),
    "dvs128": ((2, 128, 128), 15, 11),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in recipe.available() if n.endswith(("384", "256"))])
def test_the_papers_recipes_run_dry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting of them but the size of batch and network; frames are random."""
    loaded = recipe.load(name, ["train.batch_size=4", "train.workers=0"])
    shape, largest, classes = SETS[loaded.data]
    if loaded.data not in data.DATASETS:
        entry = replace(data.DATASETS["digits"], shape=shape, largest=largest, classes=classes)
        monkeypatch.setitem(data.DATASETS, loaded.data, entry)
    model = {**loaded.model, "steps": 2, "width": 8, "depth": 1, "heads": 4}
    speed, _ = dry_run(replace(loaded, model=model), steps=2, device="cpu")
    assert speed.samples == 8 and math.isfinite(speed.loss)
