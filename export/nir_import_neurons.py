"""Neurons of NIR as registers of the chip: one forward Euler step of NIR's equations.

With k = dt / tau, NIR's `CubaLIF` is ::

    I[t] = I[t-1] * (1 - k_syn) + k_syn * w_in * x[t]
    v[t] = v[t-1] * (1 - k_mem) + k_mem * (v_leak + r * I[t]),   fires on v > v_threshold

which is `stformer.network.Lif` with du + 1 = 4096 k_syn and dv = 4096 k_mem once everything is
measured from v_reset and in units of the threshold. `LIF` has no current, `IF` no leak. An `IF`
is stepped with dt * r by some tools (SpikingJelly, which writes r = 1 / dt) and with r by others
(sinabs, which writes r = 1); both mean that what arrives is added whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import Unsupported
from stformer.export import Note
from stformer.export.nir_import_tree import STAGE, Node
from stformer.network import Shape

Array = npt.NDArray[np.float64]

FIELDS = {
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
    "LIF": ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    "IF": ("r", "v_threshold", "v_reset"),
    "LI": ("tau", "r", "v_leak"),
    "I": ("r",),
}
OPTIONAL = {"v_reset": 0.0, "w_in": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neurons:
    """What a node's neurons do, before weights and thresholds are whole numbers.

    Attributes:
        spiking: False for those that become a `Readout`.
        du, dv: registers.
        gain: membrane per unit that arrives, in units of the threshold (of one, where there is
            none); of no axes or of the population's shape, as are the other two.
        drive: what the membrane gets in every step, in the same units.
        threshold: above v_reset, in the file's units; 1 where there is none.
    """

    spiking: bool
    du: int
    dv: int
    gain: Array
    drive: Array
    threshold: Array


def own_shape(node: Node) -> Shape | None:
    """The shape of a node's parameters; None where they are single numbers.

    Raises:
        InputError: parameters of several shapes, or none that can be read.
    """
    if node.kind == "CubaLI":
        raise Unsupported(STAGE, f"node {node.name}", "a CubaLI: a readout keeps no current")
    shapes = {node.numbers(k, OPTIONAL.get(k)).shape for k in FIELDS[node.kind]}
    large = {s for s in shapes if int(np.prod(s)) != 1}
    if len(large) > 1 or any(0 in s for s in large):
        node.refuse(f"parameters of shapes {sorted(large)!r:.120}", "one shape for all")
    return next(iter(large), None)


def neurons_of(node: Node, shape: Shape, dt: float, notes: list[Note]) -> Neurons:
    """A node of neurons in chip registers, with a note for each thing that changed.

    Raises:
        InputError: time constants or thresholds that are not positive.
        Unsupported: neurons of one node with several decays, and a leaky readout.
    """

    def field(key: str) -> Array:
        values = node.numbers(key, OPTIONAL.get(key))
        if values.size > 1:
            values = values.reshape(shape)
        flat = values.reshape(-1)
        return flat[:1].reshape(()) if (flat == flat[0]).all() else values

    def note(what: str) -> None:
        notes.append(Note(where=node.name, what=what))

    def rate(key: str) -> Array:
        tau = field(key)
        if tau.min() <= 0:
            node.refuse(f"{key} = {tau.min():g}", "a time constant above 0 s")
        k = np.asarray(dt / tau)
        if k.max() > 1:
            note(f"{key} is shorter than a step of {dt:g} s, and forgets everything in one")
        return np.minimum(k, 1.0)

    du, dv, k_mem = fx.NO_CURRENT, 0, np.asarray(1.0)
    gain, key = field("r"), ""
    if node.kind == "CubaLIF":
        k_syn = rate("tau_syn")
        du = _register(node, "tau_syn", k_syn, "du", 1, note)
        gain = gain * k_syn * field("w_in")
    if node.kind in ("CubaLIF", "LIF", "LI"):
        key = "tau_mem" if node.kind == "CubaLIF" else "tau"
        k_mem = rate(key)
        dv = _register(node, key, k_mem, "dv", 0, note)
        gain = gain * k_mem
    elif dt != 1 and np.allclose(gain, 1 / dt, rtol=1e-6, atol=0):
        gain = np.asarray(1.0)
        note(f"r is 1 / dt for steps of {dt:g} s: what arrives in a step is added whole")
    else:
        note("it has no time constant: what arrives in a step is added whole, as if dt were 1")
    leak = field("v_leak") if "v_leak" in FIELDS[node.kind] else np.asarray(0.0)
    if "v_threshold" not in FIELDS[node.kind]:
        if dv:
            why = f"a {node.kind} that leaks ({key}); a readout only adds up"
            raise Unsupported(STAGE, f"node {node.name}", why)
        one = np.asarray(1.0)
        return Neurons(
            spiking=False,
            du=du,
            dv=0,
            gain=gain,
            drive=np.asarray(leak * k_mem, np.float64),
            threshold=one,
        )
    reset = field("v_reset")
    threshold = np.asarray(field("v_threshold") - reset)
    if threshold.min() <= 0:
        node.refuse(f"a threshold {threshold.min():g} above v_reset", "thresholds above the reset")
    if reset.any():
        note("membranes are measured from v_reset and start there, not at 0")
        leak = leak - (reset if node.kind != "IF" else 0.0)
    if threshold.size > 1:
        note(
            "thresholds differ from neuron to neuron; each neuron's weights are divided by its own"
        )
    return Neurons(
        spiking=True,
        du=du,
        dv=dv,
        gain=np.asarray(gain / threshold),
        drive=np.asarray(leak * k_mem / threshold),
        threshold=threshold,
    )


def _register(
    node: Node, key: str, k: Array, name: str, less: int, note: Callable[[str], None]
) -> int:
    """The register for a decay of k; one for all neurons."""
    registers = np.unique(np.clip(np.rint(k * fx.DECAY_ONE) - less, 0, fx.DECAY_ONE - 1))
    if registers.size > 1:
        why = (
            f"its neurons have {registers.size} different decays ({key}: {name} "
            f"{int(registers[0])} to {int(registers[-1])}); a population has one. Split the node"
        )
        raise Unsupported(STAGE, f"node {node.name}", why)
    register = int(registers[0])
    got, wanted = (register + less) / fx.DECAY_ONE, float(k.reshape(-1)[0])
    if abs(got - wanted) > 1e-6:  # float32 holds time constants no better
        note(f"{key} is {name} = {register}: a step forgets {got:.6g}, not {wanted:.6g}")
    return register
