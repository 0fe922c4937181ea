"""Targets: every number has a source, users override single ones, errors name file, line, key."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stformer import fixedpoint as fx
from stformer import hardware_configs
from stformer.errors import InputError
from stformer.hardware_configs.schema import BASES
from stformer.hardware_configs.write import to_toml
from stformer.testing_cli import Call

TARGETS = [
    "cpu-sim",
    "loihi1-nahuku",
    "loihi2-hala-point",
    "loihi2-kapoho-point",
    "loihi2-oheo-gulch",
]

OWN = """\
[meta]
name = "mine"
base = "loihi2-kapoho-point"

[system]
chips = { value = 4, basis = "table", source = "label on the board" }
"""


def own(folder: Path, text: str = OWN) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_targets_are_these_and_load() -> None:
    assert hardware_configs.available() == TARGETS
    for name in TARGETS:
        target = hardware_configs.load(name)
        assert target.name == name
        for value in target.values():
            assert value.basis in BASES
            assert len(value.source) > 5, value
            assert value.key.split(".")[1] == value.key.rpartition(".")[2]


@pytest.mark.parametrize("name", [*TARGETS, "mine"])
def test_a_target_is_written_as_one_file(name: str, tmp_path: Path) -> None:
    text = OWN.replace("label on", 'a \\"label\\" on \U0001f600\\u007f')
    target = hardware_configs.load(own(tmp_path, text) if name == "mine" else name)
    (tmp_path / "whole.toml").write_text(to_toml(target), "utf-8")
    again = hardware_configs.load(tmp_path / "whole.toml")
    assert replace(again, files=target.files) == target
    assert again.files == (str(tmp_path / "whole.toml"),)


def test_boards_differ_in_what_their_files_say_only() -> None:
    small, large = map(hardware_configs.load, TARGETS[4:2:-1])
    changed = {
        a.key
        for a, b in zip(small.values(), large.values(), strict=True)
        if (a.value, a.source) != (b.value, b.source)
    }
    assert changed == {"system.chips"}
    assert large.system is not None and large.system.chips.value == 8


@pytest.mark.parametrize("name", TARGETS)
def test_registers_agree_with_the_arithmetic(name: str) -> None:
    """No network that `stformer.network` accepts needs a register that a target lacks."""
    n = hardware_configs.load(name).numeric
    assert n.state_bits.value == fx.STATE_BITS
    assert n.synaptic_shift.value == n.vth_shift.value == fx.SHIFT
    assert 2**n.decay_bits.value == fx.DECAY_ONE
    assert 2**n.vth_mant_bits.value - 1 == fx.VTH_RANGE[1]
    half = 2 ** (n.bias_mant_bits_signed.value - 1)
    assert (-half, half - 1) == fx.BIAS_MANT_RANGE
    assert 2**n.bias_exp_bits.value - 1 == fx.BIAS_EXP_RANGE[1]
    assert n.delay_max.value == fx.AXON_DELAY_RANGE[1]
    assert 2 ** (n.dendritic_input_bits.value - 1) - 1 == fx.ACCUMULATOR_MAX
    assert tuple(2 * w for w in fx.WEIGHT_RANGE) == n.weight_range.value


def test_a_simulator_has_no_cores() -> None:
    target = hardware_configs.load("cpu-sim")
    assert (target.core, target.system, target.energy) == (None, None, None)
    assert target.constraints.unsupported.value == ()


def test_a_users_file_overrides_single_keys(tmp_path: Path) -> None:
    target = hardware_configs.load(own(tmp_path))
    base = hardware_configs.load("loihi2-kapoho-point")
    assert target.name == "mine" and target.generation == "loihi2"
    assert target.system is not None and base.system is not None
    chips = target.system.chips
    assert (chips.value, chips.unit, chips.basis) == (4, "chip", "table")
    assert target.system.mesh == base.system.mesh and target.core == base.core
    assert target.files[1:] == ("loihi2-kapoho-point.toml", "loihi2-oheo-gulch.toml")


def test_a_base_may_be_a_file_beside_it(tmp_path: Path) -> None:
    own(tmp_path)
    second = tmp_path / "second.toml"
    second.write_text('[meta]\nname = "second"\nbase = "mine.toml"\n')
    target = hardware_configs.load(second)
    assert target.system is not None and target.system.chips.value == 4


CHIPS = 'chips = { value = 4, basis = "table", source = "label on the board" }'
MISTAKES = {
    "chip = 4": (6, "system.chip", "unknown key", "Did you mean 'chips'"),
    "chips = 4": (6, "system.chips", "4 alone", "basis ="),
    CHIPS.replace("4", "0"): (6, "system.chips", "value 0", "a whole number 1..."),
    CHIPS.replace("4", "true"): (6, "system.chips", "value True", "a whole number"),
    CHIPS.replace("4", "4.0"): (6, "system.chips", "value 4.0", "a whole number"),
    CHIPS.replace("4", "nan"): (6, "system.chips", "value nan", "a whole number"),
    CHIPS.replace("table", "guess"): (6, "system.chips", "basis 'guess'", "assumption"),
    CHIPS.replace("label on the board", " "): (6, "system.chips", "source ' '", "looked up"),
    CHIPS.replace(", source", ", unit = 'core', source"): (6, "system.chips", "'core'", "'chip'"),
    CHIPS.replace("source", "sauce"): (6, "system.chips", "no source", "source ="),
    "mesh = { value = [8], basis = 'table', source = 'x' }": (6, "system.mesh", "[8]", "[a, b]"),
    "cores_per_chip_usable = { value = 129, basis = 'table', source = 'x' }": (
        *(6, "system.cores_per_chip_usable"),
        "129 usable cores of 128",
        "at most",
    ),
    f"{CHIPS}\n[cores]": (7, "cores", "unknown section", "[core]"),
    f"{CHIPS}\n[constraints]\nunproven = {{ value = ['Lif2'], basis = 'table', source = 'x' }}": (
        *(8, "constraints.unproven"),
        "Lif2",
        "Lif",
    ),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_told_with_file_line_and_key(line: str, tmp_path: Path) -> None:
    number, key, found, allowed = MISTAKES[line]
    path = own(tmp_path, OWN.replace(CHIPS, line))
    with pytest.raises(InputError) as error:
        hardware_configs.load(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line {number}, {key}: "), message
    assert found in message and allowed in message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[meta]\nname = \n", "line 2"),
        ("x = 1", "unknown section"),
        ("[system]", "no section [meta]"),
        ("meta = 1", "a section [meta]"),
        ('[meta]\nname = "x"\n', "no 'generation'"),
        ('[meta]\nname = ""\n', "a text"),
        ('[meta]\nnick = "x"\n', "line 2, meta.nick: an unknown key"),
        ('[meta]\nbase = "mine.toml"\n', "bases without end"),
        ('[meta]\nbase = "loihi3"\n', "line 2, meta.base: no 'loihi3'"),
        ('[meta]\ninherit = ["cores"]\n', "'cores'"),
        ('[meta]\nname = "x"\ngeneration = "loihi9"\n', "'loihi9'"),
        (OWN.replace("[meta]\n", '[meta]\ninherit = ["numeric"]\n'), "no unit"),
        (OWN.replace("[meta]\n", '[meta]\ngeneration = "simulator"\n'), "[system] given"),
    ],
)
def test_files_that_are_none(text: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        hardware_configs.load(own(tmp_path, text))
    assert found in str(error.value)


def test_no_such_target() -> None:
    with pytest.raises(InputError, match="Did you mean 'loihi2-oheo-gulch'"):
        hardware_configs.load("loihi2-oheo")
    for name in ("nowhere.toml", "", "../loihi1-nahuku", "read.py", "."):
        with pytest.raises(InputError, match=f"no '{re.escape(name)}'"):
            hardware_configs.load(name)


def test_stformer_targets_lists_them(call: Call) -> None:
    listed = {t["name"]: t for t in call.json("targets")["hardware"]}
    assert list(listed) == TARGETS
    assert listed["loihi2-kapoho-point"] | {"confidence": ""} == {
        "name": "loihi2-kapoho-point",
        "generation": "loihi2",
        "chips": 8,
        "cores": 960,
        "confidence": "",
        "bases": {"vendor": 8, "code": 16, "table": 8, "derived": 7, "assumption": 20},
    }
    assert "loihi1-nahuku" in call("targets")[1]
