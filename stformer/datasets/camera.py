"""A simulated event camera: still images in, events of a small saccade out; whole numbers only.

Each pixel follows the logarithm of its brightness and emits an event whenever that has moved by
the pixel's contrast threshold (Lichtsteiner et al. 2008; simulated as in ESIM, Rebecq et al.
2018: crossings interpolated linearly between renderings). The movement is a triangle of three
saccades, as those N-MNIST was recorded with (Orchard et al. 2015). Everything after the table of
logarithms is integer arithmetic, so that a seed gives the same events on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stformer.datasets.base import Frames
from stformer.datasets.events import Events

Ints = npt.NDArray[np.int32]

SUBPIXEL = 64
"""Positions are in 1/64 of an image pixel: weights of the interpolation are whole."""

LOG_UNIT = 1024
"""Log brightness is in 1/1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """How images become events.

    Attributes:
        size: H = W of the sensor.
        pitch: distance of two sensor pixels on the image, in 1/64 image pixels.
        corners: of the movement, image positions (y, x) in 1/64 image pixels from the centre;
            it goes from corner to corner and back to the first.
        renderings: per leg; events between two are interpolated.
        interval: between renderings, microseconds.
        threshold: contrast that makes an event, in 1/1024 of log brightness.
        mismatch: thresholds of pixels differ by up to this, uniformly, ON and OFF apart.
        refractory: microseconds for which a pixel is blind after an event.
        dark: brightness of black, so that its logarithm is finite; white is `white`.
        white: largest value of an image.
        seed: of the mismatch.
    """

    size: int = 16
    pitch: int = 42
    corners: tuple[tuple[int, int], ...] = ((-64, -64), (64, 0), (-64, 64))
    renderings: int = 32
    interval: int = 3000
    threshold: int = 300
    mismatch: int = 60
    refractory: int = 3000
    dark: int = 2
    white: int = 16
    seed: int = 0


def film(images: Frames, camera: Camera) -> list[Events]:
    """What the camera sees of each image, [S, H, W] with H = W -> S recordings."""
    samples, side = images.shape[0], camera.size
    random = np.random.RandomState(camera.seed)  # its streams are frozen, a Generator's are not
    low, high = camera.threshold - camera.mismatch, camera.threshold + camera.mismatch
    on, off = (random.randint(low, high + 1, (side, side)).astype(np.int32) for _ in range(2))
    levels = _log_table(camera)
    moves = _movement(camera)
    log = _render(images, next(moves), camera, levels)
    reference, blind = log.copy(), np.full(log.shape, -camera.refractory, np.int32)
    parts: list[tuple[Ints, Ints, Ints]] = []
    for step, offset in enumerate(moves):
        before, log = log, _render(images, offset, camera, levels)
        start = step * camera.interval
        for polarity, contrast in ((1, on), (0, off)):
            sign = 2 * polarity - 1
            while True:
                # Pixels whose next level lies between the two renderings, or on the second.
                where = np.flatnonzero(sign * (log - reference) >= contrast)
                if not len(where):
                    break
                level = sign * contrast.ravel()[where % contrast.size]
                reference.ravel()[where] += level
                passed = reference.ravel()[where] - before.ravel()[where]
                whole = log.ravel()[where] - before.ravel()[where]
                time = start + passed * camera.interval // whole
                ready = time - blind.ravel()[where] >= camera.refractory
                where, time = where[ready], time[ready].astype(np.int32)
                blind.ravel()[where] = time
                parts.append((where.astype(np.int32), time, np.full_like(time, polarity)))
    where, time, p = (np.concatenate([part[i] for part in parts]) for i in range(3))
    sample, pixel = np.divmod(where, side * side)
    order = np.lexsort((pixel, time, sample))
    sample, pixel, time, p = sample[order], pixel[order], time[order], p[order]
    ends = np.searchsorted(sample, np.arange(samples + 1))
    return [
        Events(
            t=time[i:j].astype(np.int64),
            x=(pixel[i:j] % side).astype(np.uint16),
            y=(pixel[i:j] // side).astype(np.uint16),
            p=p[i:j].astype(np.uint8),
            source=f"image {k}",
        )
        for k, (i, j) in enumerate(pairwise(ends))
    ]


def _movement(camera: Camera) -> Iterator[tuple[int, int]]:
    """Image positions of the sensor's centre, rendering by rendering."""
    n = camera.renderings
    legs = zip(camera.corners, (*camera.corners[1:], camera.corners[0]), strict=True)
    yield camera.corners[0]
    for (y0, x0), (y1, x1) in legs:
        for k in range(1, n + 1):
            yield y0 + (y1 - y0) * k // n, x0 + (x1 - x0) * k // n


def _log_table(camera: Camera) -> Ints:
    """Log brightness of every interpolated value, 0...white * SUBPIXEL**2."""
    unit = SUBPIXEL * SUBPIXEL
    brightness = np.arange(camera.white * unit + 1) / unit + camera.dark
    levels: Ints = np.rint(LOG_UNIT * np.log(brightness)).astype(np.int32)
    return levels


def _render(images: Frames, offset: tuple[int, int], camera: Camera, levels: Ints) -> Ints:
    """Log brightness at the sensor's pixels, [S, size, size]; bilinear, black outside."""
    rows, columns = (_weights(images.shape[1], o, camera) for o in offset)
    # Exact: whole numbers below 2**24, in whatever order they are added.
    values = rows @ images.astype(np.float32) @ columns.T
    log: Ints = levels[values.astype(np.int32)]
    return log


def _weights(side: int, offset: int, camera: Camera) -> npt.NDArray[np.float32]:
    """[size, side] shares of the image pixels in each sensor pixel, in 1/64."""
    sensor = np.arange(camera.size) * 2 - (camera.size - 1)  # twice the distance from the centre
    position = (sensor * camera.pitch + (side - 1) * SUBPIXEL) // 2 + offset
    distance = np.abs(position[:, None] - np.arange(side) * SUBPIXEL)
    return np.maximum(SUBPIXEL - distance, 0).astype(np.float32)
