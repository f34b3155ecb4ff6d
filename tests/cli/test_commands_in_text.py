"""Commands that pages name in passing, in a line or an indented block, start something that is there.

Those in blocks marked as bash are read word by word in `test_readme.py`.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
PROGRAMS = ("python", "make", "bash")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OTHERS = {"mkdocs", "pytest", "venv", "pip"}  # modules that are not ours


def commands(page: str) -> list[list[str]]:
    """The words of every command in code spans, in indented lines and in blocks without a language."""
    blocks = re.findall(r"```(?:text)?\n(.*?)```", page, re.DOTALL)
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    lines = [*re.findall(r"`([^`\n]+)`", prose), *re.findall(r"^    (\S.*)$", prose, re.MULTILINE)]
    lines += [line for block in blocks for line in block.splitlines()]
    found = [
        line.split("#")[0].split() for line in lines if line.startswith(PROGRAMS) or re.match(r"[A-Z_]+=\S+ ", line)
    ]
    found = [words[next((n for n, word in enumerate(words) if "=" not in word), 0) :] for words in found]
    return [words for words in found if len(words) > 1 and words[0] in PROGRAMS]


def is_there(words: list[str]) -> bool:
    """Whether a command's program, module or target exists; options are not looked at."""
    program, first = words[0], words[1]
    if program == "make":
        targets = [word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)]
        return set(targets[:1]) <= TARGETS
    if program == "python" and first == "-m":
        return words[2].split(".")[0] in OTHERS or importlib.util.find_spec(words[2]) is not None
    return (ROOT / first).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_commands_start_something_that_is_there(page: str) -> None:
    wrong = [shlex.join(words) for words in commands((ROOT / page).read_text()) if not is_there(words)]
    assert wrong == []


@pytest.mark.parametrize(
    "command", ["make coffee", "python tools/gone.py --x", "python -m contextlm.gone", "bash gone.sh"]
)
def test_a_command_that_starts_nothing_would_be_noticed(command: str) -> None:
    for page in (f"Type `{command}`.", f"So:\n\n    {command}\n", f"```text\n{command}\n```\n"):
        [words] = commands(page)
        assert not is_there(words)
