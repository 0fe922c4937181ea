"""Readers of two of iniVation's formats, as far as published data sets use them; NumPy only.

AEDAT 2.0 with DVS128 addresses (CIFAR10-DVS) and AEDAT 3.1 with polarity packets (DVS128
Gesture). Specifications: docs.inivation.com, "AEDAT File Formats", pages 1.0, 2.0 and 3.1.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stformer.datasets.events import Events, in_order
from stformer.errors import InputError

LARGEST_FILE = 2**30
LONGEST_HEADER = 2**20  # jAER writes all its preferences there

# AEDAT 3.1, packet header, little-endian: type, source, size of an event, offset of its
# timestamp, timestamp overflows, capacity, number, valid ones.
PACKET = struct.Struct("<hhiiiiii")
POLARITY = 1
OVERFLOW_BITS = 31

DVS128 = 128


def read_aedat2_dvs128(path: Path) -> Events:
    """A CIFAR10-DVS recording, upright, 128x128.

    After the header lines: pairs of big-endian (address, microseconds), 32 bits each. Address:
    bit 0 polarity, 7-1 X, 14-8 Y, 15 set for an external event, which is left out (page 1.0,
    DVS128). jAER's DVS128 counts X from the right, Y from below, and takes bit 0 = 0 for ON; the
    recordings were made with the camera on its side. So x = 127 - Y, y = 127 - X, p = 1 - bit 0,
    as SpikingJelly has it (datasets/cifar10_dvs.py, _load_origin_data).

    Raises:
        InputError: not such a file, or a truncated one.
    """
    content, head, start = _open(path, b"#!AER-DAT2.0")
    # DVS128 addresses begin with a zero byte, so data are never taken for a header line.
    while head.startswith(b"#", start):
        start = _line_end(path, head, start)
    body = content[start:]
    if len(body) % 8:
        raise InputError(
            str(path), f"{len(body)} bytes of events", "a multiple of 8", "is it truncated?"
        )
    words = body.view(">u4").reshape(-1, 2)
    address = words[:, 0].astype(np.uint32)
    keep = address & 0x8000 == 0
    address, time = address[keep], words[keep, 1].astype(np.uint32).view(np.int32)
    if len(address) and int(address.max()) >= 0x8000:
        raise InputError(
            str(path), f"the address {int(address.max()):#x}", "DVS128 addresses, 15 bits"
        )
    return in_order(
        t=time.astype(np.int64),
        x=(127 - (address >> 8 & 127)).astype(np.uint16),
        y=(127 - (address >> 1 & 127)).astype(np.uint16),
        p=(1 - (address & 1)).astype(np.uint8),
        source=str(path),
    )


def read_aedat31(path: Path) -> Events:
    """The valid polarity events of an AEDAT 3.1 file.

    After the line `#!END-HEADER`: packets of a 28-byte header and `capacity` events. A polarity
    event: 32 bits of data (bit 0 valid, 1 polarity, 16-2 Y, 31-17 X, from the upper left), then
    31 bits of microseconds, on top of which the header counts overflows.

    Raises:
        InputError: not such a file, or a truncated one.
    """
    content, head, at = _open(path, b"#!AER-DAT3.1")
    line = b""
    while line != b"#!END-HEADER":
        end = _line_end(path, head, at)
        line, at = head[at:end].rstrip(), end
        if not line.startswith(b"#"):
            raise InputError(str(path), "no line #!END-HEADER", "an AEDAT 3.1 file")
    parts: list[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]] = []
    while at < len(content):
        if at + PACKET.size > len(content):
            raise _truncated(path, at)
        kind, _, size, offset, overflow, capacity, number, _ = PACKET.unpack(
            content[at : at + PACKET.size].tobytes()
        )
        at += PACKET.size
        if min(size, capacity, number, overflow) < 0 or number > capacity:
            raise InputError(str(path), f"a damaged packet before byte {at}", "an AEDAT 3.1 file")
        if at + size * capacity > len(content):
            raise _truncated(path, at)
        if kind == POLARITY:
            if (size, offset) != (8, 4):
                raise InputError(
                    str(path), f"polarity events of {size} bytes", "8, the timestamp at byte 4"
                )
            words = content[at : at + 8 * number].view("<u4").reshape(-1, 2)
            time = words[:, 1].astype(np.int64)
            if (time >= 2**OVERFLOW_BITS).any():
                raise InputError(str(path), "a negative timestamp", "31 bits")
            parts.append((words[:, 0], time + (overflow << OVERFLOW_BITS)))
        at += size * capacity
    data = np.concatenate([np.empty(0, np.uint32), *(d for d, _ in parts)])
    time = np.concatenate([np.empty(0, np.int64), *(t for _, t in parts)])
    valid = data & 1 == 1
    data, time = data[valid], time[valid]
    return in_order(
        t=time,
        x=(data >> 17 & 0x7FFF).astype(np.uint16),
        y=(data >> 2 & 0x7FFF).astype(np.uint16),
        p=(data >> 1 & 1).astype(np.uint8),
        source=str(path),
    )


def _open(path: Path, version: bytes) -> tuple[npt.NDArray[np.uint8], bytes, int]:
    """The file's bytes, those that may be its header, and where its second line begins."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_FILE:
            raise InputError(str(path), f"{size:,} bytes", f"a file of up to {LARGEST_FILE:,}")
        content = np.fromfile(path, np.uint8)
    except OSError as e:
        raise InputError(str(path), e.strerror or str(e), "a readable file") from None
    head = content[:LONGEST_HEADER].tobytes()
    if not head.startswith(version):
        allowed = f"an AEDAT file that begins with {version.decode()}"
        raise InputError(str(path), repr(head[: len(version)]), allowed)
    return content, head, _line_end(path, head, 0)


def _line_end(path: Path, head: bytes, start: int) -> int:
    end = head.find(b"\n", start)
    if end < 0:
        raise InputError(str(path), "a header without end", f"up to {LONGEST_HEADER:,} bytes")
    return end + 1


def _truncated(path: Path, at: int) -> InputError:
    return InputError(
        str(path), f"an incomplete packet at byte {at}", "a whole AEDAT 3.1 file", "fetch it anew"
    )
