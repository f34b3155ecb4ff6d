"""Reads a Dockerfile, and the folder that `docker build` sends, as far as ours need it."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

KNOWN = {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR"}


class Instruction(NamedTuple):
    """One instruction, with continued lines joined: `RUN a && b` is ("RUN", "a && b")."""

    name: str
    rest: str

    def flags(self) -> dict[str, str]:
        """`--chown=a:b` of a COPY."""
        return dict(word[2:].split("=", 1) for word in self.rest.split() if word.startswith("--"))

    def paths(self) -> tuple[list[str], str]:
        """Sources and destination of a COPY."""
        *sources, destination = (word for word in self.rest.split() if not word.startswith("--"))
        return sources, destination

    def values(self) -> dict[str, str]:
        """Names and values of an ENV."""
        return dict(word.split("=", 1) for word in shlex.split(self.rest))


def parse(text: str) -> list[Instruction]:
    """All instructions in order.

    Raises:
        ValueError: a line that is none, or one that our Dockerfile has no use for (ADD, ENTRYPOINT, ...).
    """
    without_comments = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in without_comments.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if not name:
            continue
        if name not in KNOWN:
            raise ValueError(f"no instruction of ours: {line}")
        found.append(Instruction(name, re.sub(r"\s+", " ", rest).strip()))
    return found


def stages(instructions: Sequence[Instruction]) -> list[list[Instruction]]:
    """Each stage from its FROM on; what stands before the first is for their FROMs alone."""
    begins = [index for index, each in enumerate(instructions) if each.name == "FROM"]
    ends = [*begins[1:], len(instructions)]
    return [list(instructions[begin:end]) for begin, end in zip(begins, ends, strict=True)]


class Context:
    """The files under `root` that its `.dockerignore` lets through."""

    def __init__(self, root: Path) -> None:
        self.root = root
        lines = (root / ".dockerignore").read_text().splitlines()
        self.rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def has(self, path: str) -> bool:
        """Whether a path relative to the root is sent: the last rule that fits it or a folder above it decides."""
        parts = Path(path).parts
        above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        sent = True
        for rule in self.rules:
            if any(_fits(each, rule.removeprefix("!")) for each in above):
                sent = rule.startswith("!")
        return sent

    def files(self, source: str = ".") -> Iterator[str]:
        """What is sent of a file or a folder, relative to the root."""
        start = self.root / source
        paths = [start] if start.is_file() else sorted(start.rglob("*"))
        for path in paths:
            name = path.relative_to(self.root).as_posix()
            # Nothing under .git or .venv is sent; the answer alone would take a second.
            if path.is_file() and name.split("/")[0] not in (".git", ".venv") and self.has(name):
                yield name


def _fits(path: str, pattern: str) -> bool:
    """As Docker matches: `**/` is any depth, and no other `*` crosses a slash."""
    names, patterns = path.split("/"), pattern.split("/")
    if patterns[0] == "**":
        names, patterns = names[-1:], patterns[1:]
    return len(names) == len(patterns) and all(map(fnmatch.fnmatch, names, patterns))
