"""lava-dl's slayer at a threshold tie, a membrane exactly at the threshold: CPU and CUDA kernel.

`python benchmarks/slayer_tie.py` runs slayer's CUBA neuron on the CPU, and with the CUDA kernel
of its `leaky_integrator.cu`, and counts the spikes that differ from Loihi's rule
(`stformer.fixedpoint`). On a machine with a GPU the kernel runs there. Elsewhere the same source
is compiled for the processor, its launch replaced by a loop over blocks and threads, which needs
a C++ compiler. The bits are the same: compiled for a GPU (`nvcc -ptx`) the kernel compares
integers, divides rounding to nearest, and multiplies in double what stays below 2^53.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lava.lib.dl.slayer.neuron import cuba
from lava.lib.dl.slayer.neuron.dynamics import leaky_integrator
from torch.utils.cpp_extension import load_inline

from stformer import fixedpoint as fx
from stformer.files import write_text

Spikes = npt.NDArray[np.bool_]
Dynamics = Callable[..., torch.Tensor]

NEURONS, STEPS = 2000, 100
ONE = 64  # slayer's w_scale: integers per unit of weight and threshold
# vth, du + 1 and dv of lava-dl's N-MNIST tutorial; no decay; and a threshold whose epsilon
# of 0.01 is less than half a unit in the last place of float32.
CASES = {"tutorial": (80, 1024, 123), "no decay": (80, 4096, 0), "large": (5000, 4096, 2048)}

LOOP = """
#include <torch/extension.h>
#define __global__
#define cudaSetDevice(device)
struct Index { unsigned x; };
static Index blockIdx, blockDim, threadIdx;
template <class F> void launch(unsigned blocks, unsigned threads, F kernel) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel();
}
"""
LAUNCH = re.compile(r"(\w+<float>)<<<\s*(\w+),\s*(\w+)\s*>>>\((.*?)\n    \);", re.DOTALL)


def compiled(folder: str) -> Dynamics:
    """Upstream's `dynamics` for tensors of the CPU, from its CUDA source."""
    assert leaky_integrator.__file__
    source = Path(leaky_integrator.__file__).with_name("leaky_integrator.cu").read_text()
    source, launches = LAUNCH.subn(r"launch(\2, \3, [&] { \1(\4\n); });", source)
    source, checks = re.subn(r"(#define CHECK_CUDA\(x\)).*", r"\1", source)
    assert (launches, checks) == (2, 1), "not the source of lava-dl 0.6.0"
    source = source[: source.index("PYBIND11_MODULE")]
    module = load_inline(  # type: ignore[no-untyped-call]
        "slayer_kernel", LOOP + source, functions=["LIDynamicsFx"], build_directory=folder
    )
    out: Dynamics = module.LIDynamicsFx
    return out


def slayer(arriving: npt.NDArray[np.int64], case: str, *, cure: bool, device: str) -> Spikes:
    """Spikes [neurons, steps] of slayer's neuron for the arriving sums of each step."""
    vth, du, dv = CASES[case]
    neuron = cuba.Neuron(
        threshold=vth / ONE, current_decay=du / fx.DECAY_ONE, voltage_decay=dv / fx.DECAY_ONE
    ).to(device)
    assert neuron.device_params["vThMant"] == vth
    if cure:
        neuron.threshold_eps = 1 / neuron.s_scale
    with torch.no_grad():
        out = neuron(torch.from_numpy(arriving / ONE).float()[None].to(device))
    spikes: Spikes = out[0].cpu().numpy() > 0
    return spikes


def loihi(arriving: npt.NDArray[np.int64], case: str) -> tuple[Spikes, Spikes]:
    """Spikes, and where the membrane is at the threshold, by Loihi's rule."""
    vth, du, dv = CASES[case]
    spikes, ties = np.zeros(arriving.shape, bool), np.zeros(arriving.shape, bool)
    u = v = np.zeros(len(arriving), np.int64)
    none = np.int64(0)
    for t in range(arriving.shape[1]):
        spikes[:, t], u, v = fx.lif_step(
            u, v, arriving[:, t], du=du - 1, dv=dv, vth=vth, bias=none
        )
        ties[:, t] = v == vth << fx.SHIFT
    return spikes, ties


def sums(case: str) -> npt.NDArray[np.int64]:
    """Arriving sums of even weights, as slayer quantises them, of the size of the threshold."""
    vth = CASES[case][0]
    rng = np.random.default_rng(5)
    out = 2 * rng.integers(-vth // 4, vth // 2, (NEURONS, STEPS))
    out[0] = vth // 2  # is at the threshold every second step, without decay
    return out


def measure(case: str, path: str, device: str, *, cure: bool) -> dict[str, Any]:
    arriving = sums(case)
    right, ties = loihi(arriving, case)
    theirs = slayer(arriving, case, cure=cure, device=device)
    wrong = theirs != right
    differs = wrong.any(1)
    tie, first = ties.argmax(1), wrong.argmax(1)
    return {
        "neuron": case,
        "path": path,
        "epsilon": "1 / s_scale" if cure else "0.01 / s_scale",
        "ties": int(ties.sum()),
        "spikes": int(theirs.sum()),
        "of": int(right.sum()),
        "differ": int(wrong.sum()),
        "neurons": int(differs.sum()),
        "from a tie on": int((ties.any(1) & (tie <= first))[differs].sum()),
    }


def ways(folder: str) -> Iterator[tuple[str, str, Dynamics]]:
    """(name, device, dynamics) of slayer's two paths."""
    own = leaky_integrator.dynamics
    yield "CPU", "cpu", own
    if torch.cuda.is_available():
        yield "CUDA", "cuda", own
        return
    kernel = compiled(folder)

    def dynamics(  # as `own` calls the kernel
        x: torch.Tensor,
        decay: torch.Tensor,
        state: torch.Tensor,
        scale: int,
        threshold: float = -1,
        *,
        debug: bool,
    ) -> torch.Tensor:
        assert not debug
        state = state * torch.ones(x.shape[:-1])
        return kernel(x.contiguous(), decay.contiguous(), state, threshold, scale)

    yield "CUDA's source on the CPU", "cpu", dynamics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="a file for the rows as JSON")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path, device, dynamics in ways(folder):
            leaky_integrator.dynamics = dynamics
            rows += [measure(c, path, device, cure=cure) for c in CASES for cure in (False, True)]
    if args.output:
        write_text(args.output, json.dumps(rows, indent=1) + "\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("| --- " * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
