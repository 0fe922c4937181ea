"""From TOML to `Hardware`: files on top of each other, every error with file, line and key."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from stformer.errors import InputError
from stformer.hardware_configs.schema import (
    BASES,
    FEATURES,
    GENERATIONS,
    NEEDED,
    SECTIONS,
    Hardware,
    Range,
    Value,
)
from stformer.network import POPULATIONS, PROJECTIONS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
META = ("name", "generation", "steppings", "confidence", "base", "inherit")
PARTS = ("value", "unit", "basis", "source")
MOST_BYTES = 2**20
MOST_BASES = 8
KINDS = (*(c.__name__ for c in (*POPULATIONS, *PROJECTIONS)), *FEATURES)
EXAMPLE = '{ value = 4, unit = "chip", basis = "table", source = "where it is written" }'


@dataclass(frozen=True, slots=True)
class _Entry:
    """A value's parts as they stand in the files, and where the last of them stands."""

    where: str
    parts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _File:
    where: str
    lines: dict[str, int]
    tables: dict[str, Any]

    def at(self, key: str) -> str:
        line = self.lines.get(key)
        return f"{self.where}, line {line}, {key}" if line else f"{self.where}, {key}"


def read_target(name: str, known: list[str]) -> Hardware:
    """See `stformer.hardware_configs.load`."""
    files = _chain(name, known)
    meta: dict[str, Any] = {}
    entries: dict[str, dict[str, _Entry]] = {}
    for file in reversed(files):
        kept = _meta(file)
        wanted = kept.get("inherit", list(SECTIONS))
        entries = {s: e for s, e in entries.items() if s in wanted}
        meta |= kept
        _overlay(file, entries)
    top = files[0]
    for key in ("name", "generation", "confidence"):
        if key not in meta:
            raise InputError(f"{top.where}, meta", f"no '{key}'", f"[meta] with {', '.join(META)}")
    sections: dict[str, Any] = {s: _section(s, e, top) for s, e in entries.items()}
    for section in NEEDED:
        if section not in sections:
            raise InputError(top.where, f"no section [{section}]", "one, or a base that has it")
    hardware = Hardware(
        name=meta["name"],
        generation=meta["generation"],
        confidence=meta["confidence"],
        steppings=tuple(meta.get("steppings", ())),
        files=tuple(f.where for f in files),
        **sections,
    )
    _check_whole(hardware, top)
    return hardware


def _chain(name: str, known: list[str]) -> list[_File]:
    """The target's file, then its base, the base's base..."""
    files: list[_File] = []
    folder = Path()
    while name or not files:
        path = folder / name if name.endswith(".toml") else FOLDER / f"{name}.toml"
        if not (path.is_file() if name.endswith(".toml") else name in known):
            near = get_close_matches(name, known, n=1)
            do = f"did you mean '{near[0]}'?" if near else ""
            where = files[-1].at("meta.base") if files else "hardware"
            raise InputError(where, f"no '{name}'", f"{', '.join(known)}, or a .toml file", do)
        file = _read(path)
        files.append(file)
        base = file.tables.get("meta", {}).get("base", "")
        if len(files) > MOST_BASES or not isinstance(base, str):
            raise InputError(
                file.at("meta.base"),
                f"{base!r:.80}" if len(files) <= MOST_BASES else "bases without end",
                f"a target's name or .toml file, up to {MOST_BASES} deep",
            )
        name, folder = base, path.parent
    return files


def _read(path: Path) -> _File:
    where = path.name if path.parent == FOLDER else str(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(where, "a very large file", f"up to {MOST_BYTES:,} bytes")
        text = path.read_text("utf-8")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise InputError(where, f"{e}"[:200], "a readable TOML file") from None
    for name, table in tables.items():
        file = _File(where, _lines(text), tables)
        if name not in ("meta", *SECTIONS):
            allowed = f"[meta], {', '.join(f'[{s}]' for s in SECTIONS)}"
            raise InputError(file.at(name), "an unknown section", allowed)
        if not isinstance(table, dict):
            raise InputError(file.at(name), f"{table!r:.80}", f"a section [{name}]")
    if not isinstance(tables.get("meta"), dict):
        raise InputError(where, "no section [meta]", f"[meta] with {', '.join(META)}")
    return _File(where, _lines(text), tables)


def _lines(text: str) -> dict[str, int]:
    """Line of every section and key, counted from 1; the parser itself does not say."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = match[1]
            found.setdefault(section, number)
        elif match := re.match(r"\s*([\w.-]+)\s*=", line):
            found.setdefault(f"{section}.{match[1]}" if section else match[1], number)
    return found


def _meta(file: _File) -> dict[str, Any]:
    meta: dict[str, Any] = file.tables["meta"]
    for key, value in meta.items():
        where = file.at(f"meta.{key}")
        if key not in META:
            raise InputError(where, "an unknown key", ", ".join(META))
        listed = key in ("steppings", "inherit")
        ok = isinstance(value, list if listed else str) and all(isinstance(v, str) for v in value)
        if not ok or not value or len(value) > 200:
            raise InputError(where, f"{value!r:.80}", "a list of names" if listed else "a text")
        if key == "generation" and value not in GENERATIONS:
            raise InputError(where, f"'{value}'"[:80], ", ".join(GENERATIONS))
        if key == "inherit" and (odd := sorted(set(value) - set(SECTIONS))):
            raise InputError(where, f"'{odd[0]}'"[:80], ", ".join(SECTIONS))
    return meta


def _overlay(file: _File, entries: dict[str, dict[str, _Entry]]) -> None:
    """Put a file's values over those of its bases; a unit that is left out is the base's."""
    for section, table in file.tables.items():
        if section == "meta":
            continue
        known = {f.name: f for f in fields(SECTIONS[section])}
        old = entries.setdefault(section, {})
        for key, parts in table.items():
            where = file.at(f"{section}.{key}")
            if key not in known:
                near = get_close_matches(key, list(known), n=1)
                do = f"did you mean '{near[0]}'?" if near else ""
                raise InputError(where, "an unknown key", ", ".join(known), do)
            if not isinstance(parts, dict):
                raise InputError(where, f"{parts!r:.80} alone", EXAMPLE)
            unit = {"unit": old[key].parts["unit"]} if key in old else {}
            whole = unit | parts
            if sorted(whole) != sorted(PARTS):
                lacks, odd = set(PARTS) - set(whole), set(whole) - set(PARTS)
                found = f"no {', '.join(sorted(lacks))}" if lacks else f"also {sorted(odd)!r:.80}"
                raise InputError(where, found, EXAMPLE)
            old[key] = _Entry(where, whole)


def _section(name: str, entries: dict[str, _Entry], top: _File) -> Any:
    cls = SECTIONS[name]
    hints = get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for f in fields(cls):
        hint, limits = get_args(hints[f.name])  # Annotated[Value[kind] or None, Range]
        value_type = next(t for t in (*get_args(hint), hint) if get_origin(t) is Value)
        if f.name in entries:
            (kind,) = get_args(value_type)
            values[f.name] = _value(f"{name}.{f.name}", entries[f.name], kind, limits)
        elif f.default is not None:
            raise InputError(top.at(name), f"no key '{f.name}'", EXAMPLE)
    return cls(**values)


def _value(key: str, entry: _Entry, kind: Any, limits: Range) -> Value[Any]:
    unit, low, high = limits.unit, limits.low, limits.high
    where, parts = entry.where, entry.parts
    if parts["unit"] != unit:
        raise InputError(where, f"unit {parts['unit']!r:.80}", f"'{unit}'")
    if parts["basis"] not in BASES:
        raise InputError(where, f"basis {parts['basis']!r:.80}", ", ".join(BASES))
    if not isinstance(parts["source"], str) or not parts["source"].strip():
        raise InputError(where, f"source {parts['source']!r:.80}", "where it can be looked up")
    raw = parts["value"]
    value: Any
    if kind is bool:
        value, good, allowed = raw, isinstance(raw, bool), "true or false"
    elif kind is int:
        value, good = raw, _number(raw, int, low, high)
        allowed = f"a whole number {low:,}...{high:,}"
    elif kind is float:
        good, allowed = _number(raw, (int, float), low, high), f"a number {low:,}...{high:,}"
        value = float(raw) if good else raw
    elif kind == tuple[int, int]:
        good = isinstance(raw, list) and len(raw) == 2
        good = good and all(_number(v, int, low, high) for v in raw)
        value, allowed = tuple(raw) if good else raw, f"[a, b], whole numbers {low:,}...{high:,}"
    else:
        good = isinstance(raw, list) and all(isinstance(v, str) and v in KINDS for v in raw)
        value, allowed = tuple(raw) if good else raw, f"a list of {', '.join(KINDS)}"
    if not good:
        raise InputError(where, f"value {raw!r:.80}", allowed)
    return Value(key=key, value=value, unit=unit, basis=parts["basis"], source=parts["source"])


def _number(value: object, kind: Any, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _check_whole(h: Hardware, top: _File) -> None:
    """What no single value shows."""
    has_cores = h.generation != "simulator"
    for section in ("system", "core"):
        if (getattr(h, section) is not None) != has_cores:
            found = f"[{section}] {'missing' if has_cores else 'given'}"
            allowed = "cores for a chip, none for a simulator"
            raise InputError(f"{top.where}, generation {h.generation}", found, allowed)
    memories = [m for m in (h.memory_units, h.memory_bits) if m is not None]
    if len(memories) != has_cores:
        found = f"{len(memories)} of [memory_units] and [memory_bits]"
        raise InputError(top.where, found, "one for a chip, none for a simulator")
    if h.system is not None:
        usable, there = h.system.cores_per_chip_usable, h.system.cores_per_chip_physical
        if usable.value > there.value:
            found = f"{usable.value} usable cores of {there.value}"
            raise InputError(top.at(usable.key), found, "at most the physical ones")
    costs = ("energy", "latency", "energy_conservative", "latency_conservative")
    given = [c for c in costs if getattr(h, c) is not None]
    if given and len(given) != len(costs):
        raise InputError(top.where, f"only {', '.join(given)}", f"all of {', '.join(costs)}")
    if h.energy is not None and h.energy.static_power_chip is None:
        raise InputError(top.at("energy"), "no key 'static_power_chip'", EXAMPLE)
