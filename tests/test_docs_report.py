"""docs/report.md is run: its blocks, in order, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stformer.testing_cli import Call

PAGE = Path(__file__).resolve().parent.parent / "docs" / "report.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)


def test_the_page_does_what_it_says(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, PAGE.name, "exec"), {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "stformer"
            code, _, err = call(*words)
            assert code == 0, err
    assert {"proof.html", "proof.json", "traces.html"} <= {p.name for p in tmp_path.iterdir()}
