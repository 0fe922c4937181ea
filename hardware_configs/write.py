"""A target as one TOML file, whatever files it was read from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields

from stformer.hardware_configs.schema import SECTIONS, Hardware


def to_toml(hardware: Hardware) -> str:
    """A file that `stformer.hardware_configs.load` reads as the same target."""
    return "\n".join(_lines(hardware)) + "\n"


def _lines(hardware: Hardware) -> Iterator[str]:
    yield "[meta]"
    for key in ("name", "generation", "confidence"):
        yield f"{key} = {_text(getattr(hardware, key))}"
    if hardware.steppings:
        yield f"steppings = {_text(list(hardware.steppings))}"
    for name in SECTIONS:
        section = getattr(hardware, name)
        if section is None:
            continue
        yield f"\n[{name}]"
        for f in fields(section):
            if (value := getattr(section, f.name)) is not None:
                parts = {k: v for k, v in value.plain().items() if k != "key"}
                inside = ", ".join(f"{key} = {_text(part)}" for key, part in parts.items())
                yield f"{f.name} = {{ {inside} }}"


def _text(value: object) -> str:
    """JSON's numbers, lists and texts are TOML's too, but for its escape of 0x7f."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
