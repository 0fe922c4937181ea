"""A few steps of a real recipe on made-up data: does it fit, and how fast is it?"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import asdict, dataclass, replace

import torch

from stformer import data
from stformer.errors import InputError
from stformer.recipe import Recipe
from stformer.training.precision import repeatable
from stformer.training.processes import joined, total
from stformer.training.setup import begin, check_parts, fresh_model
from stformer.training.step import Progress, run_epoch

WARM = 1  # steps before the clock starts: they allocate, choose algorithms, compile


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a dry run measured.

    Attributes:
        steps: timed.
        samples: of all processes, in these steps.
        seconds: they took.
        samples_per_second: their ratio.
        peak_bytes: of memory, the largest of the processes: allocated on the GPU, or
            resident of the whole process where there is none.
        memory: "GPU" or "process".
        device: as torch names it.
        processes: how many took part.
        loss: mean over the steps.
    """

    steps: int
    samples: int
    seconds: float
    samples_per_second: float
    peak_bytes: int
    memory: str
    device: str
    processes: int
    loss: float

    def to_plain(self) -> dict[str, object]:
        return asdict(self)


def dry_run(recipe: Recipe, *, steps: int = 10, device: str = "") -> tuple[Speed, bool]:
    """Train for so many steps on random frames of the recipe's data set; nothing is written.

    Args:
        recipe: what and how; its own batch size, augmentation and precision.
        steps: timed ones; one more goes before.
        device: see `stformer.training.processes.find_device`.

    Returns:
        The measurement, and whether this is the process that reports it.
    """
    if steps < 1:
        raise InputError("--steps", str(steps), "1 or more")
    config = replace(recipe.train, validation=0.0)
    with joined(device) as here, repeatable(config.deterministic):
        check_parts(config, here)
        model = fresh_model(recipe)
        samples = (steps + WARM) * config.batch_size
        split = data.synthetic(recipe.data, model.config.steps, samples)["train"]
        t = begin(model, split, config, here)
        clock: list[float] = []

        def after(_done: Progress) -> None:
            if t.here.device.type == "cuda":
                torch.cuda.synchronize(t.here.device)
            clock.append(time.perf_counter())

        loss = run_epoch(t, 0, config.lr, after_step=after)
        seconds = clock[-1] - clock[WARM - 1]
        gpu = here.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(here.device) if gpu else _resident()
        peaks = torch.zeros(here.size, dtype=torch.int64)
        peaks[here.rank] = peak
        done = steps * config.batch_size
        speed = Speed(
            steps=steps,
            samples=done,
            seconds=seconds,
            samples_per_second=done / seconds,
            peak_bytes=int(total(peaks, here).max()),
            memory="GPU" if gpu else "process",
            device=torch.cuda.get_device_name(here.device) if gpu else "cpu",
            processes=here.size,
            loss=loss,
        )
        return speed, here.first


def _resident() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
