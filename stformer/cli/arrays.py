"""Samples from .npy and .npz files that nobody has checked before."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from stformer.cli.common import ARRAYS, Data
from stformer.errors import InputError
from stformer.network import Network, Readout

MAX_BYTES = 2**33  # of one array; more is a mistake or an attack

_FAILURES = (
    EOFError,
    KeyError,
    NotImplementedError,  # a compression that zipfile lacks
    OverflowError,
    RuntimeError,  # an encrypted member
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_data(path: Path, network: Network) -> Data:
    """The samples of a file, for a network.

    Args:
        path: an .npy file (one array, for the one input), or an .npz with `inputs`, or, for a
            network with several inputs, with an array for each by name; and perhaps `labels`.
        network: decides which arrays are wanted; shapes are `check_inputs`'s business.

    Raises:
        InputError: not there, not such a file, too large, cut off, or with Python objects.
    """
    where = str(path)
    names = [p.name for p in network.inputs]
    keys = dict(zip(["inputs"] if len(names) == 1 else names, names, strict=True))
    if path.suffix not in ARRAYS:
        if path.is_dir():
            raise InputError(where, "a folder", "a data set's name, .npy or .npz")
        raise InputError(where, f"a file '{path.suffix}'", "a data set's name, .npy or .npz")
    if not path.is_file():
        found = "no file" if path.exists() else "no such file"
        raise InputError(where, found, "an .npy or .npz file")
    if path.suffix == ".npy" and len(names) != 1:
        raise InputError(where, "one array", f"an .npz file with {', '.join(names)}")
    try:
        if path.suffix == ".npy":
            with path.open("rb") as f:
                array = _array(where, f, path.stat().st_size)
            _check_counts(where, {names[0]: array}, network)
            return Data(inputs={names[0]: array}, labels=None, source=path.name)
        with zipfile.ZipFile(path) as archive:
            inputs = {names_of: _member(where, archive, key) for key, names_of in keys.items()}
            has_labels = "labels.npy" in archive.namelist()
            labels = _member(where, archive, "labels") if has_labels else None
    except _FAILURES as e:
        why = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        raise InputError(
            where,
            f"not a whole {path.suffix} file ({why})",
            "what numpy.save or numpy.savez wrote",
        ) from e
    except OSError as e:
        raise InputError(where, f"cannot be read ({e.strerror})", "a readable file") from e
    _check_counts(where, inputs, network)
    if labels is not None:
        _check_labels(where, labels, len(next(iter(inputs.values()))), network)
    return Data(inputs=inputs, labels=labels, source=path.name)


def _member(where: str, archive: zipfile.ZipFile, key: str) -> npt.NDArray[Any]:
    there = [name.removesuffix(".npy") for name in archive.namelist()]
    if key not in there:
        raise InputError(where, f"arrays {', '.join(there) or 'none'}"[:200], f"an array '{key}'")
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as f:
        return _array(f"{where}, {key}", f, info.file_size)


def _array(where: str, f: IO[bytes], size: int) -> npt.NDArray[Any]:
    """Read an array after its header has shown that it is a sane one of `size` bytes."""
    npy: Any = np.lib.format  # untyped in some releases of NumPy
    version = npy.read_magic(f)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(f)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(f)
    else:
        raise InputError(where, f"version {version} of the format", "1.0 or 2.0, plain numbers")
    if dtype.kind not in "biuf":
        what = "Python objects" if dtype.hasobject else f"elements of type {dtype}"
        raise InputError(where, f"{what}"[:120], "whole numbers")
    expected = prod(shape) * dtype.itemsize
    if expected > MAX_BYTES:
        raise InputError(where, f"an array of {expected:,} bytes", f"up to {MAX_BYTES:,}")
    if min(shape, default=1) < 0 or expected != size - f.tell():
        raise InputError(
            where, f"{size - f.tell():,} bytes of data", f"{expected:,}, as its header says"
        )
    flat = np.empty(prod(shape), dtype)
    _read_into(f, flat.view(np.uint8).data)
    return flat.reshape(shape, order="F" if fortran else "C")


def _read_into(f: IO[bytes], target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = f.readinto(target[done : done + 2**20])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the data end too early")
        done += count


def _check_counts(where: str, inputs: Mapping[str, npt.NDArray[Any]], network: Network) -> None:
    """Samples are counted and cut before `check_inputs` sees them: they must be countable."""
    for name, array in inputs.items():
        if array.ndim == 0:
            shape = ", ".join(map(str, ("samples", network.steps, *network[name].shape)))
            raise InputError(where, "a single number", f"[{shape}]")
    counts = {name: len(a) for name, a in inputs.items()}
    if len(set(counts.values())) > 1:
        raise InputError(where, f"samples {counts}", "equal numbers for all inputs")


def _check_labels(where: str, labels: npt.NDArray[Any], samples: int, network: Network) -> None:
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        found = f"{labels.dtype} labels of shape {list(labels.shape)}"
        raise InputError(where, found, f"{samples} whole numbers, one for each sample")
    readouts = [p for p in network.populations if isinstance(p, Readout)]
    classes = readouts[0].shape[0] if len(readouts) == 1 else None
    if samples and classes and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            where,
            f"labels {labels.min()}...{labels.max()}",
            f"0...{classes - 1}, the classes of {network.name}",
        )
