"""What the README shows is run: every ```sh and ```python block, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)


def test_there_are_blocks_of_both_kinds() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.slow
@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=lambda x: x.strip().splitlines()[0])
def test_block(language: str, block: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    if "lava" in block:
        pytest.importorskip("lava", reason="Lava is not installed")
    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([bin_folder, os.environ["PATH"]])
    command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [
        sys.executable, "-c", block,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
