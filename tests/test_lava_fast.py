"""Our process models for Lava's processes send what the stock ones send, wraps included."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

pytest.importorskip("lava.magma", reason="Lava is not installed")

from lava.magma.core.model.py.type import LavaPyType
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense
from lava.proc.sparse.process import DelaySparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix

from stformer.deploy.lava_build import FAST, STOCK

Messages = npt.NDArray[np.int32]
WEIGHTS = [(-128, 127), (-6, 6), (1, 9), (-128, -1), (0, 0), (127, 127), (-16384, 16383)]
MESSAGES = [(0, 1), (0, 0), (-3, 3), (0, 255), (-(2**23), 2**23 - 1)]


class Port:
    """A port of a model that runs alone: gives messages, keeps what is sent as int32."""

    def __init__(self, shape: tuple[int, ...], messages: Messages | None = None) -> None:
        self.shape = shape
        self._messages = iter(()) if messages is None else iter(messages)
        self.sent: list[Messages] = []

    def recv(self) -> Messages:
        return next(self._messages)

    def send(self, values: npt.NDArray[Any]) -> None:
        channel = np.zeros(self.shape, np.int32)
        channel[:] = values  # as a channel does, with whatever cast that is
        self.sent.append(channel)


def sent(process: Any, model: type[Any], messages: Messages) -> Messages:
    """What a model of a process sends, step by step, and what stands in its buffer at the end."""
    made = model(process.proc_params)
    for var in process.vars:
        kind = getattr(model, var.name, None)
        if isinstance(kind, LavaPyType):
            init = np.broadcast_to(var.init, var.shape) if kind.cls is np.ndarray else var.init
            setattr(made, var.name, init.astype(kind.d_type))
    source, target = process.in_ports.members[0], process.out_ports.members[0]
    out = Port(target.shape)
    setattr(made, source.name, Port(source.shape, np.concatenate([messages, messages[:1] * 0])))
    setattr(made, target.name, out)
    for step in range(len(messages) + 1):
        made.time_step = step + 1
        with np.errstate(invalid="ignore"):  # sums beyond int32, which both cast alike
            made.run_spk()
    return np.stack(out.sent)


def draw_messages(draw: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> Messages:
    low, high = draw(st.sampled_from(MESSAGES))
    steps = draw(st.integers(1, 4))
    rate = draw(st.sampled_from([0.05, 0.5, 1.0]))
    values = rng.integers(low, high, (steps, *shape), endpoint=True, dtype=np.int32)
    return values * (rng.random(values.shape) < rate)


@st.composite
def convolutions(draw: Any) -> tuple[Any, Messages]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 3))
    c_in, c_out = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    dilation, stride, padding = ([draw(st.integers(1, 3)) for _ in range(2)] for _ in range(3))
    padding = [n - 1 for n in padding]
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 8))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    low, high = draw(st.sampled_from(WEIGHTS))
    weight = rng.integers(low, high, (c_out, *kernel, c_in // groups), endpoint=True)
    messages = draw_messages(draw, rng, (*size, c_in))
    process = Conv(
        weight=weight,
        input_shape=(*size, c_in),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        num_message_bits=draw(st.sampled_from([0, 24])),
    )
    return process, messages


@given(convolutions())
def test_convolutions(drawn: tuple[Any, Messages]) -> None:
    process, messages = drawn
    stock = sent(process, STOCK[Conv], messages)
    np.testing.assert_array_equal(sent(process, FAST[Conv], messages), stock)


@st.composite
def delayed(draw: Any, kind: type[Any]) -> tuple[Any, Messages]:
    """Weights as Lava takes them and delays of any synapse, not only one for all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    low, high = draw(st.sampled_from([(-256, 254), (-6, 6), (254, 254), (-256, -256), (0, 0)]))
    weights = rng.integers(low, high, size, endpoint=True)
    longest = draw(st.integers(0, 4))
    delays = rng.integers(0, longest, size, endpoint=True)
    if kind is DelaySparse:
        weights, delays = csr_matrix(weights), csr_matrix(np.where(weights, delays, 0))
    process = kind(
        weights=weights,
        delays=delays,
        max_delay=longest,
        weight_exp=draw(st.integers(-1, 6)),
        sign_mode=SignMode.MIXED,
        num_message_bits=draw(st.sampled_from([0, 24])),
    )
    return process, draw_messages(draw, rng, size[1:])


# Weights that Lava truncates to 0 leave the matrix, and their delays do not: scipy grumbles.
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@given(delayed(DelayDense) | delayed(DelaySparse))
def test_delays(drawn: tuple[Any, Messages]) -> None:
    process, messages = drawn
    kind = type(process)
    # Long after the last message: what waits in the buffer comes out.
    messages = np.concatenate([messages, np.zeros((5, *messages.shape[1:]), np.int32)])
    stock = sent(process, STOCK[kind], messages)
    np.testing.assert_array_equal(sent(process, FAST[kind], messages), stock)


def test_a_convolution_wraps_to_24_bits() -> None:
    process = Conv(weight=np.full((1, 1, 1, 1), 3), input_shape=(1, 1, 1), num_message_bits=24)
    messages = np.array([2**22, -(2**22), 2**21], np.int32).reshape(3, 1, 1, 1)
    for models in (STOCK, FAST):
        values = sent(process, models[Conv], messages).ravel().tolist()
        assert values == [0, 3 * 2**22 - 2**24, 2**24 - 3 * 2**22, 3 * 2**21]
