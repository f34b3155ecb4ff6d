"""What docs/troubleshooting.md quotes is what the programs say."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
ROOMS = ("contextlm", "tools")


def quoted(page: str) -> list[str]:
    """The messages in the first cells of a page's tables. What begins with `--` or names a file is no message."""
    first_cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    spans = [span for cell in first_cells for span in re.findall(r"`([^`]+)`", cell)]
    return [span for span in spans if " " in span]


def text_of(node: ast.expr) -> str:
    """A string of the source, with `...` for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "..."


@cache
def messages() -> str:
    """All strings of the programs, a line each."""
    trees = [ast.parse(path.read_text()) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    strings = {
        text_of(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    shell = (ROOT / "environment/bootstrap.sh").read_text()
    return "\n".join([*(string.replace("\n", " ") for string in sorted(strings)), shell])


def is_said(message: str) -> bool:
    pieces = [re.escape(piece) for piece in message.strip(". ").split("...")]
    return re.search(".*".join(pieces), messages()) is not None


@pytest.mark.parametrize("message", quoted(PAGE))
def test_quoted_messages_are_what_the_programs_say(message: str) -> None:
    assert is_said(message)


def test_a_message_that_nobody_says_would_be_noticed() -> None:
    assert quoted("| `no such message ... at all` | why | what |") == ["no such message ... at all"]
    assert not is_said("no such message ... at all")
    assert not is_said("rank ... ran out of ... patience")
    assert len(quoted(PAGE)) > 20
