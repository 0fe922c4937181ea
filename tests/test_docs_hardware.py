"""What docs/hardware.md and docs/energy.md show is run; their tables are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stformer import hardware_configs
from stformer.deploy.rules import RULES
from stformer.testing_cli import Call

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text("utf-8") for name in ("hardware", "energy")}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(
    page: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "".join(blocks(page, "sh")).splitlines()
    assert lines
    for line in lines:
        command, _, fallback = line.partition("||")
        if "--picture" in line:
            pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        code, _, err = call(*shlex.split(command, comments=True)[1:])
        assert code == bool(fallback), err
    code_blocks = blocks(page, "python")
    assert code_blocks
    for block in code_blocks:
        exec(compile(block, page, "exec"), {})


def test_the_board_of_the_page_loads(tmp_path: Path) -> None:
    (block,) = blocks("hardware", "toml")
    path = tmp_path / "our-board.toml"
    path.write_text(block)
    target = hardware_configs.load(path)
    assert target.system is not None and target.system.chips.value == 4


def test_the_page_names_every_rule_and_target() -> None:
    for rule in RULES:
        assert f"`{rule.name}`" in PAGES["hardware"], rule.name
    for name in hardware_configs.available():
        assert f"`{name}`" in PAGES["hardware"]
