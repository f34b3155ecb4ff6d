"""CITATION.cff, the pre-commit hooks and `make check` are complete, agree with each other, and pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python does not

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def wrong_in_citation(citation: dict[str, object]) -> list[str]:
    """What the Citation File Format 1.2.0 requires and a file lacks."""
    problems = [key for key in ("cff-version", "message", "title", "authors") if not citation.get(key)]
    authors = citation.get("authors") or []
    assert isinstance(authors, list)
    problems += ["an author without a name" for author in authors if not {"name", "family-names"} & set(author)]
    kinds = ("software", "dataset")
    return problems + (["type"] if citation.get("type", "software") not in kinds else [])


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert wrong_in_citation(citation) == []
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert wrong_in_citation({**citation, "authors": [{"alias": "x"}], "title": ""}) == [
        "title",
        "an author without a name",
    ]


def checks() -> list[str]:
    """The programs of `make check`."""
    recipe = re.search(r"^check: environment\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    return [line.removeprefix("\t@") for line in recipe[1].splitlines()]


def test_hooks_are_the_checks_and_download_nothing() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    entries = {re.sub(" --fix$", "", hook["entry"]) for hook in repository["hooks"]}
    assert entries == {re.sub(r" --check|\.$", "", line).strip() for line in checks()}


@pytest.mark.full
def test_everything_passes_the_checks() -> None:
    for line in checks():
        words = [sys.executable, *line.split()[1:]]
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1800)
        assert ended.returncode == 0, ended.stdout + ended.stderr
