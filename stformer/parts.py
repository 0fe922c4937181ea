"""Which part of the model a population belongs to, told from its name."""

from __future__ import annotations

import re

# In the model's order; the first pattern that matches from the start decides.
PARTS: dict[str, str] = {
    "input": r"input$",
    "stem": r"stem(_|\b)",
    "spatial": r"spatial\b",
    "rpe": r"rpe\b",
    "temporal": r"temporal",
    "attention": r"(.*\.)?attention\b",
    "MLP": r"(.*\.)?mlp\d*\b",
    "residual": r"((.*\.)?(join|sn)\d*|pool)\b",
    "head": r"head\b",
    "other": "",
}


def part_of(population: str) -> str:
    """Key of PARTS that a population's name belongs to."""
    return next(part for part, pattern in PARTS.items() if re.match(pattern, population))
