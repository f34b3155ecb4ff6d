"""What becomes of Megatron-LM's flags that ContextLM does not have: ignored with a warning, or refused with a reason.

A script written for Megatron-LM meets a sentence here, never "unrecognized", and never an option that is
silently ignored. The sentences are in `megatron_flags.yaml`, which is read when the first such flag is met.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_FILE = Path(__file__).with_name("megatron_flags.yaml")


class Verdict(NamedTuple):
    """A sentence about a flag, without the flag itself, and whether the flag is refused or only warned of."""

    refused: bool
    sentence: str


def flag_verdict(name: str, words: Sequence[str]) -> Verdict | None:
    """What becomes of the flag `name` (no dashes in front) with these `words`; None: Megatron-LM has no such flag."""
    entry = _entries().get(name)
    if entry is None:
        return None
    if "remedy" not in entry:
        wrong = _wrong_count(entry["takes_value"], len(words))
        return Verdict(True, f"{wrong}; drop it: {entry['why']}") if wrong else _ignored(entry["why"])
    if len(words) == 1 and words[0] in str(entry.get("passes", "")).split():
        return _ignored(entry["why"])
    return Verdict(True, _refusal(entry))


def refused_value(field_name: str, value: object) -> str | None:
    """Why a real Megatron-LM value of a field we have is refused; None if it is not in the file."""
    flag = field_name.replace("_", "-")
    for entry in _file()["values"]:
        if entry["flag"] == flag and str(value) in entry["values"].split():
            return f"{value}: {_refusal(entry)}"
    return None


def _ignored(why: str) -> Verdict:
    return Verdict(False, f"not needed, and ignored: {why}")


def _refusal(entry: dict[str, Any]) -> str:
    status = "not supported yet:" if entry.get("yet") else "not supported in ContextLM because"
    return f"{status} {entry['why']}; {entry['remedy']}"


def _wrong_count(takes_value: bool, count: int) -> str | None:
    """What is wrong with the number of words after a flag, if anything."""
    if count == takes_value:
        return None
    return "takes no value" if not takes_value else "takes one value" if count else "a value is missing"


@functools.cache
def _entries() -> dict[str, dict[str, Any]]:
    """Flag -> its entry, and whether one that is not needed takes a value."""
    found: dict[str, dict[str, Any]] = {}
    for entry in [*_file()["not_needed"], *_file()["not_supported"]]:
        for flag in entry["flags"].split():
            name, _, value = flag.partition("=")
            found[name] = {**entry, "takes_value": value == "N"}
    return found


@functools.cache
def _file() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))
