"""Sphinx: Markdown pages, docstrings, and the help of every command as it is."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "stformer"
author = "the stformer developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"  # what single backticks mean in our docstrings
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "stformer"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
suppress_warnings = ["myst.xref_missing"]


def write_commands(_app: object) -> None:
    """cli.md from the parsers, so that it cannot disagree with them."""
    from stformer.cli import COMMANDS
    from stformer.cli.parser import parser_of

    parts = ["# Commands\n"]
    for name, command in COMMANDS.items():
        text = parser_of(name, command, command.module or f"stformer.cli.{name}").format_help()
        parts.append(f"## stformer {name}\n\n```text\n{text.rstrip()}\n```\n")
    (ROOT / "docs" / "cli.md").write_text("\n".join(parts), "utf-8")


def plain_text(
    _app: object, _what: str, _name: str, _obj: object, _opt: object, lines: list[str]
) -> None:
    """Docstrings are plain text: stars and bars mean themselves."""
    lines[:] = [re.sub(r"(?<!^)\*|\|", r"\\\g<0>", line) for line in lines]  # "* " begins an item


def setup(app) -> None:  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon
    app.connect("builder-inited", write_commands)
