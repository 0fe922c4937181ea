"""Stands in for the profiler of Intel's extension: its names, and numbers of no meaning."""

from __future__ import annotations

import numpy as np


class _Probe:
    """What Lava's run configuration calls before and after a run."""

    def pre_run_callback(self, board: object, var_id_to_var_model_map: object) -> None:
        self.attached = True

    def post_run_callback(self, board: object, var_id_to_var_model_map: object) -> None:
        self.done = True


class Loihi2Power(_Probe):
    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    @property
    def total_power(self) -> object:
        return np.array([0.5, 1.5])

    @property
    def static_power(self) -> object:
        raise RuntimeError("not measured")


class Loihi2ExecutionTime(_Probe):
    avg_time_per_step = 12.5


class Loihi2Activity(_Probe):
    spikes = 7
