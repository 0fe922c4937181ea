"""The integer rules: against big-integer Python, torch, Lava's own neuron and lava-dl's slayer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stformer import fixedpoint as fx

TOP = 2**23
EDGES = [0, 1, 2, 63, 64, 4095, 4096, 4097, TOP // 2, TOP - 2, TOP - 1, TOP]
DECAYS = [0, 1, 2, 1229, 2047, 2048, 2049, 4094, 4095]

states = st.sampled_from([*EDGES, *(-x for x in EDGES[:-1])]) | st.integers(-TOP + 1, TOP)
registers = st.sampled_from(DECAYS) | st.integers(0, 4095)
# One wrap is defined for currents up to 24 bits beyond; the chip's own sums stay below 2^15.
sums = st.sampled_from([0, 1, -1, 32767, -32767, 2**17, -(2**17)]) | st.integers(-(2**18), 2**18)


def step_in_python(
    u: int, v: int, a: int, du: int, dv: int, vth: int, bias: int
) -> tuple[bool, int, int]:
    """Written from docs, with Python's own integers and no shift: the independent opinion."""

    def scaled(x: int, factor: int) -> int:
        size = abs(x) * factor // 4096
        return size if x >= 0 else -size

    u = scaled(u, 4096 - (du + 1)) + 64 * a
    if u > TOP:
        u -= 2 * TOP
    elif u <= -TOP:
        u += 2 * TOP
    v = min(max(scaled(v, 4096 - dv) + u + bias, -TOP + 1), TOP - 1)
    fired = v > 64 * vth
    return fired, u, 0 if fired else v


@given(
    st.lists(st.tuples(states, states, sums), min_size=1, max_size=8),
    *(registers, registers),
    st.sampled_from([1, 2, 131071]) | st.integers(*fx.VTH_RANGE),
    st.sampled_from([-4096, -1, 0, 1, 4095]),
    st.integers(*fx.BIAS_EXP_RANGE),
)
def test_step_against_python(
    cells: list[tuple[int, int, int]], du: int, dv: int, vth: int, mant: int, exp: int
) -> None:
    u, v, a = (np.array(column, np.int64) for column in zip(*cells, strict=True))
    v = fx.clip(v)
    bias = np.array(mant) << exp
    spikes, new_u, new_v = fx.lif_step(u, v, a, du=du, dv=dv, vth=vth, bias=bias)
    for i in range(len(cells)):
        wanted = step_in_python(int(u[i]), int(v[i]), int(a[i]), du, dv, vth, mant * 2**exp)
        assert (bool(spikes[i]), int(new_u[i]), int(new_v[i])) == wanted


@pytest.mark.parametrize("decay", [0, 1, 2047, 2048, 4095, 4096])
def test_decay_rounds_toward_zero_and_is_odd(decay: int) -> None:
    x = np.array(EDGES, np.int64)
    np.testing.assert_array_equal(fx.decay(-x, decay), -fx.decay(x, decay))
    wanted = [n * (4096 - decay) // 4096 for n in EDGES]
    np.testing.assert_array_equal(fx.decay(x, decay), wanted)


def test_wrap_has_lavas_interval() -> None:
    u = np.array([TOP - 1, TOP, TOP + 1, -TOP + 1, -TOP, -TOP - 1, 3 * TOP, -3 * TOP + 1])
    wanted = [TOP - 1, TOP, -TOP + 1, -TOP + 1, TOP, TOP - 1, TOP, -TOP + 1]
    np.testing.assert_array_equal(fx.wrap(u), wanted)


def test_clip_is_symmetric() -> None:
    v = np.array([TOP, TOP - 1, -TOP, -TOP + 1, 2**40, -(2**40)])
    most = TOP - 1
    np.testing.assert_array_equal(fx.clip(v), [most, most, -most, -most, most, -most])


def test_threshold_is_strict_and_reset_keeps_the_current() -> None:
    u = np.zeros(3, np.int64)
    a = np.array([9, 10, 11])
    spikes, u, v = fx.lif_step(u, u, a, du=fx.NO_CURRENT, dv=0, vth=10, bias=np.int64(0))
    np.testing.assert_array_equal(spikes, [False, False, True])
    np.testing.assert_array_equal(u, 64 * a)
    np.testing.assert_array_equal(v, [576, 640, 0])


def test_register_names_mean_what_they_say() -> None:
    x = np.array([-TOP + 1, -4095, 4095, TOP])
    assert (fx.current(x, np.zeros(4, np.int64), fx.NO_CURRENT) == 0).all()
    np.testing.assert_array_equal(fx.decay(x, fx.MEMORYLESS)[1:3], [0, 0])
    assert fx.decay(np.array(4096), fx.MEMORYLESS) == 1  # the first that is remembered
    assert fx.decay(x, 0) is not x
    np.testing.assert_array_equal(fx.decay(x, 0), x)


def random_cells(n: int = 4000) -> tuple[npt.NDArray[np.int64], ...]:
    rng = np.random.default_rng(4)
    u = np.concatenate([np.array(EDGES), rng.integers(-TOP + 1, TOP, n, endpoint=True)])
    v = np.concatenate([fx.clip(-np.array(EDGES)), rng.integers(-TOP + 1, TOP, n)])
    a = np.concatenate([np.array(EDGES) % 131072, rng.integers(-131071, 131071, n)])
    return u, v, a


@pytest.mark.parametrize("du", DECAYS)
@pytest.mark.parametrize("dv", DECAYS)
def test_torch_computes_the_same(du: int, dv: int) -> None:
    torch = pytest.importorskip("torch")
    cells = random_cells()
    bias = np.full(len(cells[0]), -4096 << 7)
    mine = fx.lif_step(*cells, du=du, dv=dv, vth=60000, bias=bias)
    theirs = fx.lif_step(
        *map(torch.from_numpy, cells), du=du, dv=dv, vth=60000, bias=torch.from_numpy(bias)
    )
    for x, y in zip(mine, theirs, strict=True):
        assert x.dtype == y.numpy().dtype
        np.testing.assert_array_equal(x, y.numpy())


@pytest.mark.parametrize("du", DECAYS)
@pytest.mark.parametrize("dv", DECAYS)
def test_lava_computes_the_same(du: int, dv: int) -> None:
    """Lava's own methods (lava/proc/lif/models.py), fed by hand for some steps."""
    models = pytest.importorskip("lava.proc.lif.models")
    u, v, a = random_cells()
    rng = np.random.default_rng(5)
    mant = rng.integers(-4096, 4096, len(u))
    vth = 90000
    lava = models.PyLifModelBitAcc({})
    lava.u, lava.v = u.astype(np.int32), v.astype(np.int32)
    lava.du, lava.dv, lava.vth = du, dv, vth
    lava.bias_mant, lava.bias_exp = mant.astype(np.int16), np.int16(7)
    lava.scale_bias()
    lava.scale_threshold()
    fired = 0
    for _ in range(4):
        spikes, u, v = fx.lif_step(u, v, a, du=du, dv=dv, vth=vth, bias=mant << 7)
        lava.subthr_dynamics(a.astype(np.int32))
        theirs = lava.spiking_activation()
        lava.reset_voltage(theirs)
        np.testing.assert_array_equal(spikes, theirs)
        np.testing.assert_array_equal(u, lava.u)
        np.testing.assert_array_equal(v, lava.v)
        fired += int(spikes.sum())
        a = rng.permutation(a)
    assert fired > 100


@pytest.mark.filterwarnings("ignore")  # of lava-dl's and torch's imports
@pytest.mark.parametrize(
    ("du", "dv"), [(4095, 2048), (0, 0), (1023, 128), (2047, 1229), (4094, 1)]
)
def test_slayer_computes_the_same(du: int, dv: int) -> None:
    """lava-dl's CUBA neuron, in its valid range: no wrap, no clip, vth below 4096.

    Scales: input a/64 at s_scale 4096 is a << 6, threshold vth/64, decays in 4096ths.
    """
    torch = pytest.importorskip("torch")
    cuba = pytest.importorskip("lava.lib.dl.slayer.neuron.cuba")
    steps, vth = 24, 900
    rng = np.random.default_rng(6)
    a = rng.integers(-300, 1000, (50, steps))
    a[0, :], a[0, 0] = 0, vth  # meets the threshold exactly: no spike
    a[1, :], a[1, 0] = 0, vth + 1
    neuron = cuba.Neuron(
        threshold=vth / 64, current_decay=(du + 1) / 4096, voltage_decay=dv / 4096
    )
    assert neuron.device_params["vThMant"] == vth
    assert (neuron.device_params["iDecay"], neuron.device_params["vDecay"]) == (du + 1, dv)
    theirs = neuron(torch.from_numpy(a / 64).float()[None])[0].numpy() > 0
    u = v = np.zeros(len(a), np.int64)
    mine = np.zeros(a.shape, bool)
    for t in range(steps):
        mine[:, t], u, v = fx.lif_step(u, v, a[:, t], du=du, dv=dv, vth=vth, bias=np.int64(0))
        assert np.abs(u).max() < TOP
    np.testing.assert_array_equal(mine, theirs)
    assert not mine[0, 0]
    assert mine[1, 0]
    assert 0.02 < mine.mean() < 0.98
