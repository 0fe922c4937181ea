"""Cores of a population: the public compiler tables, and small cases computed by hand."""

from __future__ import annotations

import pytest

from stformer import hardware_configs
from stformer.deploy.demand import Demand, Fan
from stformer.deploy.tiling import RESOURCES, Load, Tile, _divisors, _shares, cut, limits, load

CHIP = hardware_configs.load("loihi2-oheo-gulch")
OLD = hardware_configs.load("loihi1-nahuku")


def conv(w: int, h: int, c: int, kernel: int, channels: int) -> Demand:
    fan = Fan(
        projection="x>y",
        pre="x",
        taps=kernel**2,
        channels=channels,
        sources=channels * w * h,
        size=(h, w),
        reach=(kernel, kernel),
    )
    fans = (fan,) if kernel else ()
    return Demand(population="y", kind="Lif", shape=(c, h, w), flat=False, fans=fans)


def dense(n_in: int, n_out: int) -> Demand:
    fan = Fan(projection="x>y", pre="x", dense=True, sources=n_in)
    return Demand(population="y", kind="Lif", shape=(n_out, 1, 1), flat=True, fans=(fan,))


# Cores that the compiler of Loihi 2 used, as printed in the notebooks of lava-dl 0.6.0:
# netx/pilotnet_snn/benchmark.ipynb, netx/yolo_kp/run.ipynb, netx/mnist/run.ipynb, oxford.
CONVOLUTIONS = {  # (width, height, channels, kernel, channels of the source)
    "pilotnet input": ((200, 66, 3, 0, 0), 13),
    "pilotnet 1": ((99, 32, 24, 3, 3), 25),
    "pilotnet 2": ((49, 15, 36, 3, 24), 13),
    "pilotnet 3": ((24, 7, 48, 3, 36), 3),
    "pilotnet 4": ((22, 4, 64, 3, 48), 3),
    "pilotnet 5": ((20, 2, 64, 3, 64), 2),
    "yolo 1": ((224, 224, 16, 3, 3), 224),
    "yolo 2": ((112, 112, 32, 3, 16), 112),
    "yolo 3": ((56, 56, 64, 3, 32), 56),
    "yolo 4": ((28, 28, 128, 3, 64), 28),
    "yolo 5": ((28, 28, 256, 3, 128), 56),
    "yolo 6": ((14, 14, 256, 3, 256), 16),
    "yolo 7": ((14, 14, 512, 3, 256), 32),
    "yolo 8": ((14, 14, 256, 1, 512), 14),
    "yolo 9": ((14, 14, 48, 1, 512), 4),
}
DENSE = {  # (neurons of the source, neurons)
    "pilotnet 6": ((2560, 100), 12),
    "pilotnet 7": ((100, 50), 1),
    "pilotnet 8": ((50, 10), 1),
    "pilotnet 9": ((10, 1), 1),
    "mnist 1": ((784, 128), 3),
    "mnist 2": ((128, 64), 1),
    "mnist 3": ((64, 10), 1),
    "oxford 1": ((200, 256), 3),
    "oxford 2": ((256, 200), 2),
}


@pytest.mark.parametrize("row", CONVOLUTIONS)
def test_convolutions_take_the_compilers_cores(row: str) -> None:
    shape, observed = CONVOLUTIONS[row]
    found = cut(CHIP, conv(*shape))
    assert found.cores == observed
    assert found.least is not None and found.least <= observed


@pytest.mark.parametrize("row", DENSE)
def test_dense_layers_bracket_the_compilers_cores(row: str) -> None:
    shape, observed = DENSE[row]
    found = cut(CHIP, dense(*shape))
    assert found.least is not None and found.cores is not None
    assert found.least <= observed <= found.cores


def test_a_core_of_loihi_2_by_hand() -> None:
    """3x3 from 64 to 128 channels, a column of 28 pixels a core."""
    found = cut(CHIP, conv(28, 28, 128, 3, 64))
    assert found.tile == Tile(1, 28, 128)
    synapses = 9 * 64 * 16  # 0.125 * 128 = 16 units a tap and channel
    assert found.load == Load(3584, synapses, 2, 0.75 * 3584 + synapses + 0.75 * 2)
    assert found.share.neurons == pytest.approx(0.8752, abs=1e-4)  # as the table prints it
    assert found.limited_by == "neurons"  # 100,352 of 4,095; synapses 9,216 of 12,000


def test_a_dense_core_of_loihi_2_by_hand() -> None:
    found = cut(CHIP, dense(784, 128))
    assert found.least == 3  # 43 neurons a core: 784 * ceil(0.32 * 43) = 10,976 of 12,000 units
    assert found.cores == 5  # half as many again
    assert found.tile == Tile(1, 1, 26)
    synapses = 784 * 9  # ceil(0.32 * 26)
    assert found.load == Load(26, synapses, 784, 0.75 * 26 + synapses + 0.75 * 784)
    assert found.limited_by == "synapses"


def test_a_core_of_loihi_1_by_hand() -> None:
    """A fifth is kept free: 819 neurons, 838,860 bits, 3,276 axons."""
    assert limits(OLD)[:3] == (819, 838860, 3276)
    demand = conv(16, 16, 32, 3, 8)
    tile = Tile(4, 4, 32)
    assert load(OLD, demand, tile)[:3] == (512, 9 * 8 * 32 * 9, 36)  # 6 x 6 pixels read
    found = cut(OLD, demand)
    assert found.cores is not None and found.cores >= 8192 / 819
    assert found.limited_by == "neurons"


def test_what_fits_on_no_core_says_what_one_neuron_needs() -> None:
    """The head of a paper-size network: one kernel over 8 x 8 tokens of 384 channels."""
    fan = Fan(
        projection="x>head",
        pre="x",
        taps=64,
        channels=384,
        sources=64 * 384,
        size=(8, 8),
        reach=(8, 8),
    )
    head = Demand(population="head", kind="Readout", shape=(10, 1, 1), flat=False, fans=(fan,))
    found = cut(CHIP, head)
    assert (found.cores, found.least, found.tile) == (None, None, Tile(1, 1, 1))
    assert found.limited_by == "synapses"
    assert found.load.synapses == 64 * 384
    assert found.share.synapses == pytest.approx(2.048)
    wide = cut(CHIP, dense(16001, 1))
    assert wide.cores is None and wide.limited_by == "memory"
    assert set(RESOURCES) == set(Load._fields)


def test_a_simulator_has_room() -> None:
    found = cut(hardware_configs.load("cpu-sim"), dense(10**6, 10**6))
    assert found.cores == 1


@pytest.mark.parametrize("n", [1, 2, 5, 12, 97, 360])
def test_sizes_that_tiles_may_have(n: int) -> None:
    assert _divisors(n) == [i for i in range(1, n + 1) if n % i == 0]
    assert _shares(n) == sorted({-(-n // k) for k in range(1, n + 1)}, reverse=True)


@pytest.mark.parametrize("shape", [(2**26, 1, 1), (1, 2**13, 2**13), (2**13, 1, 2**13)])
def test_the_largest_populations_are_cut_in_no_time(shape: tuple[int, int, int]) -> None:
    demand = Demand(population="y", kind="Lif", shape=shape, flat=False, fans=())
    found = cut(CHIP, demand)
    assert found.cores is not None and found.least is not None
    assert 2**26 / 4095 <= found.least <= found.cores
