"""The trained module itself, in its integer life, as a backend.

It is rebuilt from the network (`stformer.lower.restore`) and must lower to that very network
again, so what runs here is what was trained, through torch's convolutions in float32. The weights
show that no sum reaches 2^24, so float32 holds every partial sum, and the result is the same in
whatever order and on whatever device they are added. Neurons compute in int64.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from stformer.bounds import FLOAT32_EXACT, bounds
from stformer.errors import Problem, Unsupported
from stformer.network import Graded, Network, Readout, SumTokens
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, spike_dtype

BATCH = 64


def _in_float64(network: Network, name: str) -> bool:
    """Whether the module adds up a population's sums in float64: readouts, means over tokens."""
    p = network[name]
    pooled = any(isinstance(q, SumTokens) for q in network.incoming(name))
    return isinstance(p, Readout) or (isinstance(p, Graded) and pooled)


class Torch:
    """Runs networks that were lowered from an STFormer; relays do not exist in the module."""

    name = "torch"
    device = "cpu"

    def missing(self) -> str | None:
        if find_spec("torch") is None:
            return "torch is not installed; pip install 'stformer[train]'"
        return None

    def problems(self, network: Network) -> list[Problem]:
        from stformer.lower import restore

        try:
            restore(network)
        except Unsupported as e:
            return [Problem(where=e.where, why=e.why)]
        return [
            Problem(
                where=f"population {name}",
                why=f"its sums may reach {largest:,}; torch adds in float32, which is exact below"
                f" {FLOAT32_EXACT:,}",
            )
            for name, largest in bounds(network).arriving.items()
            if largest >= FLOAT32_EXACT and not _in_float64(network, name)
        ]

    def tell(self) -> dict[str, str]:
        """For the trace's info, after a run."""
        return {}

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        import torch

        from stformer.lower import record, restore
        from stformer.training.precision import exact

        frames = check_inputs(network, inputs)
        (x,) = frames.values()
        model = restore(network).to(self.device)
        started = time.perf_counter()
        parts: dict[str, list[np.ndarray]] = {}  # type: ignore[type-arg]

        def recorder(
            name: str, s: torch.Tensor, u: torch.Tensor | None, v: torch.Tensor | None
        ) -> None:
            if not probe.wants(name):
                return
            kept = {"s": s, "u": u, "v": v} if probe.states else {"s": s}
            for key, value in kept.items():
                if value is not None:
                    dtype = spike_dtype(network, name) if key == "s" else np.int32
                    sample_first = value.transpose(0, 1).cpu().numpy().astype(dtype)
                    parts.setdefault(f"{key} {name}", []).append(sample_first)

        record(model, recorder)
        with torch.no_grad(), exact(torch.device(self.device)):
            for start in range(0, len(x), BATCH):
                batch = torch.from_numpy(x[start : start + BATCH].astype(np.float32))
                model(batch.transpose(0, 1).contiguous().to(self.device))
        joined = {key: np.concatenate(arrays) for key, arrays in parts.items()}
        input_name = network.inputs[0].name
        if probe.wants(input_name):
            joined[f"s {input_name}"] = x.astype(spike_dtype(network, input_name))

        def of(kind: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
            names = [p.name for p in network.populations]
            return {n: joined[f"{kind} {n}"] for n in names if f"{kind} {n}" in joined}

        return Trace(
            network=network.digest(),
            inputs=digest_inputs(frames),
            backend=self.name,
            spikes=of("s"),
            u=of("u"),
            v=of("v"),
            info={"seconds": time.perf_counter() - started, **self.tell()},
        )


class TorchCuda(Torch):
    """The same on a GPU."""

    name = "torch-cuda"
    device = "cuda"

    def missing(self) -> str | None:
        if reason := super().missing():
            return reason
        if not Path("/dev/nvidiactl").exists():  # torch itself takes seconds to say so
            return "no NVIDIA GPU is here; use a machine with one"
        return None

    def tell(self) -> dict[str, str]:
        import torch

        return {"gpu": torch.cuda.get_device_name()}
