"""What a dry run finds wrong with a command line."""

from __future__ import annotations

from contextlm.config import parse
from contextlm.errors import UserError


def dry_problems(line: str, world_size: int | None = None) -> tuple[str, ...]:
    """Every problem; empty if there is none."""
    words = ["--dry-run", *line.split()] + (["--world-size", str(world_size)] if world_size else [])
    try:
        parse(words, {})
    except UserError as error:
        return error.problems
    return ()
