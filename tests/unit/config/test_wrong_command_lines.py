"""Every wrong command line of `wrong_command_lines.txt` gets exactly its messages, all of them at once.

`python -m tests.unit.config.test_wrong_command_lines` prints the file with the messages of now: read them as a user
would before they are committed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from contextlm.config import parse
from contextlm.errors import UserError

FILE = Path(__file__).with_name("wrong_command_lines.txt")
IMPERATIVES = set(
    "add begin check drop give keep leave mend move put save see shorten start use write".split()
)  # how a remedy begins


class Case(NamedTuple):
    """One command line: its words, whether it starts a run, the run.yaml beside it and what is said of it."""

    line: str
    starts: bool
    yaml: str
    messages: tuple[str, ...]


def cases() -> list[Case]:
    """The file's."""
    found: list[Case] = []
    for line in FILE.read_text().splitlines():
        mark, text = line[:2].strip(), line[2:]
        if mark in ("$", ">"):
            found.append(Case(text, mark == ">", "", ()))
        elif mark == "|":
            found[-1] = found[-1]._replace(yaml=found[-1].yaml + text + "\n")
        elif text and not mark:
            found[-1] = found[-1]._replace(messages=(*found[-1].messages, text))
    return found


def fill(folder: Path) -> None:
    """The files that the command lines name."""
    for name in ("a.bin", "a.idx", "b.bin", "b.idx", "first_text_document.bin", "first_text_document.idx", "empty.txt"):
        (folder / name).touch()
    (folder / "blend.txt").write_text("0.7 a\n0.3 b\n")
    (folder / "bad_blend.txt").write_text("0.7 a\nb\n")
    (folder / "empty").mkdir()
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "latest_checkpointed_iteration.txt").write_text("5")


def said(case: Case) -> tuple[str, ...]:
    """What is said of a command line, in the current folder."""
    Path("run.yaml").write_text(case.yaml)
    try:
        parse([*case.line.split(), *([] if case.starts else ["--dry-run"])], {})
    except UserError as error:
        return error.problems
    return ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lines")
    fill(made)
    return made


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.line)
def test_every_line_gets_its_messages(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert said(case) == case.messages and case.messages


def says_what_to_do(message: str) -> bool:
    """Whether its last clause begins with what the user is to do, or asks what was meant."""
    _, semicolon, clause = message.rpartition("; ")
    begins = clause.startswith("did you mean ") or clause.split()[0].rstrip(",") in IMPERATIVES
    return bool(semicolon) and begins


def test_the_list_is_long_and_every_message_ends_with_what_to_do() -> None:
    assert len(cases()) >= 60
    assert [message for case in cases() for message in case.messages if not says_what_to_do(message)] == []
    for message in (
        "--a: 1.5 is not a whole number",
        "--a 1; 2 is better",
        "--a: see; this is wrong",
        "use at most 2: a",
    ):
        assert not says_what_to_do(message)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        fill(Path())
        remaining, pending = iter(cases()), None
        for line in [*FILE.read_text().splitlines(), None]:
            if pending is not None and (line is None or line[:1] != "|"):
                print(*(f"  {message}" for message in said(pending)), sep="\n")
                pending = None
            if line is not None and line[:1] in ("$", ">"):
                pending = next(remaining)
            if line is not None and line[:2] != "  ":
                print(line)
