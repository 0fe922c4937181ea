"""Site files: what a laboratory's machines are called. TOML, one table for each purpose.

Their words go into batch scripts, so only those are taken that no shell reads as more than a
word.
"""

from __future__ import annotations

import re
import sys
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from stformer.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:=/+@-]*")
MOST = 4096  # of a number, where its field names no other limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """Jobs of a batch system: the table [slurm].

    Attributes:
        partition: sbatch's; "" takes the site's own.
        workers: jobs, each with one worker that runs one chunk at a time (`--cluster`).
        cores: of a job.
        memory: of a job, as "8GiB"; Dask ends a worker that needs more.
        walltime: of a job, "HH:MM:SS".
        account: sbatch's; may be "".
        directives: further #SBATCH options, as "--exclusive" or "--gres=loihi:1".
    """

    partition: str = ""
    workers: int = 1
    cores: int = 1
    memory: str = "4GiB"
    walltime: str = "01:00:00"
    account: str = ""
    directives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loihi:
    """A laboratory's chip: the table [loihi].

    Attributes:
        backend: what runs the spikes that are compared; "lava-sim" rehearses without a chip.
        host: "slurm" (boards are nodes of a batch system that NxCore itself asks for one) or
            "ethernet" (a board of one's own).
        partition, board: where NxCore looks for a board; one of them, for host "slurm".
        address: of the board's host, for host "ethernet".
        host_binary: of NxCore on that host.
        generation: of the chip (`lava.utils.loihi.ChipGeneration`).
        input_delay, output_delay: steps that messages take onto the chip and back.
        measures: what is measured, one run each.
        timeout: seconds that each run may take.
    """

    backend: str = "loihi2"
    host: str = field(default="slurm", metadata={"one of": ("slurm", "ethernet")})
    partition: str = ""
    board: str = ""
    address: str = ""
    host_binary: str = "nxcore/bin/nx_driver_server"
    generation: str = field(
        default="N3B3", metadata={"one of": ("N2A2", "N3B2", "N3B3", "N3C1", "N3D1")}
    )
    input_delay: int = field(default=0, metadata={"least": 0, "most": 62})
    output_delay: int = field(default=0, metadata={"least": 0, "most": 62})
    measures: tuple[str, ...] = field(
        default=("power", "time", "activity"), metadata={"one of": ("power", "time", "activity")}
    )
    timeout: int = field(default=1500, metadata={"most": 7 * 24 * 3600})


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site file; a table that is not there is None."""

    slurm: Slurm | None = None
    loihi: Loihi | None = None


_KINDS: dict[str, type[Any]] = {"slurm": Slurm, "loihi": Loihi}


def read_site(path: str | Path, wanted: str) -> Site:
    """A site file that has the wanted table, "slurm" or "loihi".

    Raises:
        InputError: no such file, no TOML, no such table, an unknown key, a value of another
            type, or text that a batch script could take for something else.
    """
    try:
        top = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(str(path), f"cannot be read ({e})"[:200], "a TOML file") from e
    if unknown := sorted(set(top) - set(_KINDS)):
        raise InputError(f"{path}, {unknown[0]}", "an unknown table", ", ".join(_KINDS))
    if wanted not in top:
        raise InputError(str(path), f"no table [{wanted}]", f"one of {_keys(_KINDS[wanted])}")
    return Site(**{name: _table(f"{path}, {name}", name, table) for name, table in top.items()})


def _table(where: str, name: str, table: object) -> Any:
    kind = _KINDS[name]
    if not isinstance(table, dict):
        raise InputError(where, "no table", f"[{name}] with {_keys(kind)}")
    known: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}
    for key in table:
        if key not in known:
            raise InputError(f"{where}.{key}", "an unknown key", _keys(kind))
    return kind(**{key: _value(f"{where}.{key}", known[key], v) for key, v in table.items()})


def _keys(kind: type[Any]) -> str:
    return ", ".join(f.name for f in fields(kind))


def _value(where: str, known: Field[Any], value: object) -> object:
    given = tuple(value) if isinstance(value, list) else value
    if type(given) is not type(known.default):
        wanted = type(known.default).__name__
        raise InputError(where, repr(value)[:80], f"a value of type {wanted}")
    least, most = known.metadata.get("least", 1), known.metadata.get("most", MOST)
    if isinstance(given, int) and not least <= given <= most:
        raise InputError(where, str(given), f"{least}...{most}")
    choices = known.metadata.get("one of")
    for word in given if isinstance(given, tuple) else [str(given)]:
        if not isinstance(word, str):
            raise InputError(where, repr(word)[:80], "texts")
        if choices and word not in choices:
            raise InputError(where, repr(word)[:80], ", ".join(choices))
        if word and not WORD.fullmatch(word.removeprefix("--")):
            raise InputError(where, repr(word)[:80], "letters, digits and _ . , : = / + @ -")
    return given
