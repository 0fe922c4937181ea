"""The training neuron: integer forward, surrogate backward, and the blocks around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from stformer import fixedpoint as fx  # noqa: E402
from stformer.nn import (  # noqa: E402
    Fire,
    Gate,
    HeadGate,
    HeadSum,
    Join,
    Mix,
    Neuron,
    Pool,
    Scores,
    StreamScale,
    TokenMean,
    TokenSum,
    lif,
)
from stformer.nn.layers import conv_block, stream_block, temporal_block  # noqa: E402
from stformer.nn.neuron import SURROGATE_SLOPE, lif_states  # noqa: E402
from stformer.nn.weighted import bias_exponent, mantissa  # noqa: E402


def binary(*shape: int, p: float = 0.5) -> Tensor:
    return (torch.rand(shape) < p).float()


def test_float_neuron_against_the_equation_written_out() -> None:
    a, bias = torch.randn(6, 2, 3, 1, 1), 0.1
    neuron = Neuron(dv=1365)
    got = lif(a, neuron, bias=bias)
    v = torch.zeros(2, 3, 1, 1)
    for t in range(6):
        v = v * (4096 - 1365) / 4096 + a[t] + bias
        assert torch.equal(got[t], (v > 1).float())
        v = torch.where(v > 1, torch.zeros_like(v), v)


@pytest.mark.parametrize("dv", [0, 1, 2048, 2731, 4095])
def test_integer_neuron_is_fixedpoint(dv: int) -> None:
    rng = np.random.default_rng(dv)
    a = rng.integers(-3000, 3000, (7, 50))
    a[:, :3] = [[0, 150, -150]]  # thresholds met exactly among them
    bias = rng.integers(-4096, 4096, 50)
    spikes = lif(torch.tensor(a).float(), Neuron(dv=dv), bias=torch.tensor(bias).float(), vth=150)
    states = lif_states(torch.tensor(a).float(), Neuron(dv=dv), torch.tensor(bias).float(), 150)
    assert states.u is not None
    assert states.v is not None
    u = v = np.zeros(50, np.int64)
    for t in range(7):
        s, u, v = fx.lif_step(u, v, a[t], du=4095, dv=dv, vth=150, bias=bias)
        np.testing.assert_array_equal(spikes[t].numpy(), s)
        np.testing.assert_array_equal(states.s[t].numpy(), s)
        np.testing.assert_array_equal(states.u[t].numpy(), u)
        np.testing.assert_array_equal(states.v[t].numpy(), v)


def test_a_threshold_met_exactly_does_not_fire() -> None:
    neuron = Neuron(dv=4095)
    assert not lif(torch.full((1, 1), 1.0), neuron).any()
    assert not lif(torch.full((1, 1), 77.0), neuron, vth=77).any()
    assert lif(torch.full((1, 1), 78.0), neuron, vth=77).all()
    one = torch.ones(1)
    assert lif(torch.full((1, 1), 77.0), neuron, bias=one, vth=77).all()


@pytest.mark.parametrize("integer", [False, True])
def test_gradient_is_the_surrogate_through_time(integer: bool) -> None:
    """Against autograd through the same recurrence, the step's slope put in by hand."""
    neuron = Neuron(dv=2048, v_th=0.5)
    vth = 64
    unit = float(vth) if integer else 1.0
    a = (torch.randn(5, 3, 4) * unit).round() if integer else torch.randn(5, 3, 4)
    bias = torch.zeros(4, requires_grad=True)
    a.requires_grad_(True)
    out = lif(a, neuron, bias=bias, vth=vth if integer else None)
    weights = torch.randn(5, 3, 4)
    (out * weights).sum().backward()

    x = a.detach().clone().requires_grad_(True)
    b = torch.zeros(4, requires_grad=True)
    v, soft = torch.zeros(3, 4), []
    for t in range(5):
        v = v * 0.5 + x[t] / unit + b / (unit * 64 if integer else 1.0)
        s = out[t].detach()
        smooth = torch.sigmoid(SURROGATE_SLOPE * neuron.v_th * (v - 1))
        soft.append(smooth + (s - smooth).detach())
        v = v * (1 - s)
    (torch.stack(soft) * weights).sum().backward()
    assert x.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad, x.grad, rtol=2e-2 if integer else 1e-5, atol=1e-5)
    torch.testing.assert_close(bias.grad, b.grad, rtol=2e-2 if integer else 1e-5, atol=1e-5)


def test_gates_are_their_truth_tables() -> None:
    x = torch.tensor([0.0, 0, 1, 1]).reshape(1, 1, 4, 1, 1)
    y = torch.tensor([0.0, 1, 0, 1]).reshape(1, 1, 4, 1, 1)
    assert Gate()(x, y).flatten().tolist() == [0, 0, 0, 1]
    assert Join("iand")(x, y).flatten().tolist() == [0, 0, 1, 0]
    assert Join("or")(x, y).flatten().tolist() == [0, 1, 1, 1]
    assert Join("add")(x, y).flatten().tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("make", [Gate, lambda: Join("iand"), lambda: Join("or"), HeadGate])
def test_a_gate_records_the_lif_that_it_becomes(make: object) -> None:
    gate = make()  # type: ignore[operator]
    seen: dict[str, Tensor] = {}
    gate.recorder = lambda name, s, u, v: seen.update(s=s)
    x, y = binary(3, 2, 4, 5, 5), binary(3, 2, 4, 5, 5)
    assert torch.equal(gate(x, y), seen["s"])


def test_pools_and_sums_record_what_they_return() -> None:
    for module in (Pool(), TokenSum(Neuron(v_th=0.5)), HeadSum(2, Neuron(v_th=0.5))):
        seen: dict[str, Tensor] = {}
        module.recorder = lambda name, s, u, v, seen=seen: seen.update(s=s)
        out = module(binary(4, 2, 4, 6, 6, p=0.1))
        assert torch.equal(out, seen["s"])
        assert out.any()
        assert not out.all()


def test_temporal_block_is_causal_and_reaches_back_as_far_as_its_taps() -> None:
    block = temporal_block(3, 4, Neuron(dv=4095), taps=3, dilations=(1, 2)).eval()
    for synapse in block.synapses:
        torch.nn.init.uniform_(synapse.weight, 3, 4)  # every tap fires its channels
    x = torch.zeros(8, 1, 3, 1, 1)
    x[2] = 1
    reached = block(x)[:, 0, :, 0, 0].any(0), block(x)[:, 0, :, 0, 0]
    narrow, wide = reached[1][:, 0], reached[1][:, 2]
    assert narrow.nonzero().flatten().tolist() == [2, 3, 4]
    assert wide.nonzero().flatten().tolist() == [2, 4, 6]


def test_a_skip_adds_the_input_with_the_gain_of_the_norm() -> None:
    block = conv_block(2, 2, 1, Neuron(dv=2048), skip=0).eval()
    torch.nn.init.zeros_(block.synapses[0].weight)
    x = torch.ones(4, 1, 2, 1, 1)
    # v: 0.5, 0.75, 0.875, ...: never above 1; with bias 0.3 it is: 0.8, 1.2
    assert not block(x).any()
    torch.nn.init.constant_(block.norm.bias, 0.3)
    assert block(x)[:, 0, 0, 0, 0].tolist() == [0, 1, 0, 1]
    block.quantise()
    assert block(x)[:, 0, 0, 0, 0].tolist() == [0, 1, 0, 1]


def test_quantising_keeps_scales_in_range() -> None:
    for size in (1e-9, 1e-3, 1.0, 1e3):
        block = conv_block(3, 4, 3, Neuron()).eval()
        torch.nn.init.uniform_(block.synapses[0].weight, -size, size)
        block.quantise()
        weights = block.whole_weights()[0]
        assert 1 <= int(block.vth) <= fx.VTH_RANGE[1]
        assert weights.min() >= -128
        assert weights.max() <= 127


def test_graded_inputs_never_overflow_the_accumulator() -> None:
    block = conv_block(3, 4, 3, Neuron()).eval()
    block.quantise(largest_input=255)
    weights = block.whole_weights()[0].detach()  # inputs are not negative: only one sign adds up
    worst = (
        max(float((sign * weights).clamp(min=0).sum((1, 2, 3)).max()) for sign in (1, -1)) * 255
    )
    assert 0.8 * fx.ACCUMULATOR_MAX < worst <= 1.05 * fx.ACCUMULATOR_MAX


@pytest.mark.parametrize(("largest", "exponent"), [(0, 0), (51, 0), (52, 1), (819, 4), (1e9, 7)])
def test_bias_exponent_leaves_a_quarter_of_room(largest: float, exponent: int) -> None:
    assert bias_exponent(largest) == exponent


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, (0, 0)), (127, (127, 0)), (128, (64, 1)), (255, (64, 2)), (9999, (78, 7))],
)
def test_mantissa_is_the_nearest_that_fits(value: int, expected: tuple[int, int]) -> None:
    assert mantissa(value) == expected


def test_products_count_exactly_under_mixed_precision() -> None:
    q = torch.ones(1, 1, 8, 40, 40)  # 1,600 tokens: bfloat16 counts to 256
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = Scores(1)(q, q)
        mixed = Mix(1)(scores, q)
    assert (scores == 8).all()
    assert (mixed == 8 * 1600).all()


def stream(seed: int = 0) -> tuple[StreamScale, Any, Any, Any]:
    """A stream that begins with one block, gets another, and is read."""
    torch.manual_seed(seed)
    scale = StreamScale()
    first = stream_block(3, 4, 3, scale, skip=None).eval()
    branch = stream_block(4, 4, 1, scale, bias=True, gain=0.2).eval()
    torch.nn.init.uniform_(branch.norm.bias, -1, 1)
    torch.nn.init.uniform_(branch.linear_bias, -1, 1)
    return scale, first, branch, Fire(Neuron(), scale)


def test_a_stream_keeps_its_values_in_whole_numbers() -> None:
    scale, first, branch, fire = stream()
    x, s = binary(3, 2, 3, 5, 5), binary(3, 2, 4, 5, 5)
    with torch.no_grad():
        expected = branch(s, stream=first(x))
        scale.quantise()
        got = branch(s, stream=first(x))
    sigma = float(scale.sigma)
    assert (got == got.round()).all()
    assert (got / sigma - expected).abs().max() < 0.02 * expected.abs().max()
    # The smaller weights have all seven bits, the larger ones an exponent.
    assert int(branch.weight_exp) == 0
    assert float(branch.synapses[0].weight.detach().abs().max()) == pytest.approx(127, abs=0.5)
    assert int(first.weight_exp) > 0
    assert int(fire.vth) == round(sigma / 0.5)


def test_halving_a_stream_is_the_same_on_a_coarser_grid() -> None:
    scale, first, branch, fire = stream()
    x, s = binary(3, 2, 3, 5, 5), binary(3, 2, 4, 5, 5)
    with torch.no_grad():
        scale.quantise()
        before, vth, bits = branch(s, stream=first(x)), int(fire.vth), int(first.weight_exp)
        scale.halve()
        after = branch(s, stream=first(x))
    assert (after - before / 2).abs().max() <= 6  # a rounding of each of a few terms
    assert abs(int(fire.vth) - vth / 2) <= 1
    assert int(first.weight_exp) == bits - 1


def test_a_stream_trains_through_its_rounding() -> None:
    scale, first, branch, fire = stream()
    scale.quantise()
    out = branch(binary(3, 2, 4, 5, 5), stream=first(binary(3, 2, 3, 5, 5)))
    fire(out).sum().backward()
    for block in (first, branch):
        assert block.synapses[0].weight.grad.abs().sum() > 0
        assert block.bias.grad.abs().sum() > 0


def test_the_mean_of_a_stream_is_shifted_toward_zero() -> None:
    scale, *_ = stream()
    mean = TokenMean(scale)
    scale.quantise()
    ones = mean.quantise(tokens=4)
    assert 16 <= ones <= 64
    values = torch.tensor([[4.0, -5.0], [1.0, 0.0]])[None, None, None] * 2 ** int(mean.shift)
    assert mean(values).item() == 0
    assert mean(values * 7).item() == 0
    assert mean(values.abs()).item() == 10
    assert mean(-values.abs() - 1).item() == -10


def test_centred_taps_look_ahead_and_stay_within_the_sample() -> None:
    block = temporal_block(1, 1, Neuron(dv=4095), taps=3, causal=False).eval()
    assert [s.delay for s in block.synapses] == [-1, 0, 1]
    with torch.no_grad():
        for synapse, weight in zip(block.synapses, (2.0, 0.0, 0.0), strict=True):
            synapse.weight.fill_(weight)  # only the tap that looks ahead
        block.norm.weight.fill_(1)
    x = torch.tensor([1.0, 0, 1, 1]).reshape(4, 1, 1, 1, 1)
    assert block(x).flatten().tolist() == [0, 1, 1, 0]


def test_products_are_those_of_attention() -> None:
    q, k, v = (binary(2, 3, 6, 2, 2) for _ in range(3))
    heads = [x.reshape(2, 3, 2, 3, 4) for x in (q, k, v)]
    scores = torch.einsum("tbhdn,tbhdm->tbhnm", heads[0], heads[1])
    assert torch.equal(Scores(2)(q, k), scores)
    mixed = torch.einsum("tbhnm,tbhdm->tbhdn", scores, heads[2]).reshape(v.shape)
    assert torch.equal(Mix(2)(scores, v), mixed)
