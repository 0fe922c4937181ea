"""A run configuration in place of Lava's for hardware: the same processes, on this CPU."""

from __future__ import annotations

from typing import Any

from lava.magma.core.run_configs import Loihi2SimCfg

from stformer.deploy.lava_build import STOCK


class Config(Loihi2SimCfg):  # type: ignore[misc]
    """Takes what `Loihi2HwCfg` is given."""

    def __init__(self, callback_fxs: list[Any]) -> None:
        super().__init__(select_tag="fixed_pt", exception_proc_model_map=dict(STOCK))
        for probe in callback_fxs:
            probe.pre_run_callback(None, {})
