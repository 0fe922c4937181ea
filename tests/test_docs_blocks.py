"""Pages whose blocks are run, in order, each page in a folder of its own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stformer.testing_cli import Call

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = {
    "import": {"lif.nir"},
    "report": {"proof.html", "proof.json", "traces.html"},
    "traces": {"cpu.trace", "reference.trace", "long.trace"},
}


@pytest.mark.parametrize("page", MADE)
def test_the_page_does_what_it_says(
    page: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text("utf-8")
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S)
    assert blocks
    for language, block in blocks:
        if language == "python":
            exec(compile(block, f"{page}.md", "exec"), {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "stformer"
            code, _, err = call(*words)
            assert code == 0, err
    assert MADE[page] <= {p.name for p in tmp_path.iterdir()}
