"""The command line: words -> raw values by field, and everything that is wrong with them.

Why a reader of our own: argparse stops at the first error, accepts abbreviations, takes `-1,1,0` for an
option, and its defaults clobber values from YAML; jsonargparse and tyro give nested names
(`--model.num_layers`) where Megatron-LM's scripts say `--num-layers`. The whole grammar is: a word that
starts with `--` and a letter is a flag, every other word is a value of the flag before it; `--name=value`
is one value; a truth value is `--name` or `--no-name`. Nothing is abbreviated and nothing may be given
twice. Read next: `resolve.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from contextlm.config.fields import Field
from contextlm.config.refused import refused_flag
from contextlm.config.suggestions import nearest_name

_FLAG = re.compile(r"--[A-Za-z]")

# Flags of the program rather than of the tree, and the word that stands for their value in --help.
PROGRAM_FLAGS: Mapping[str, str | None] = {
    "model": "PRESET",
    "config": "FILE.yaml",
    "dry-run": None,
    "world-size": "N",
    "help": None,
}


class FlagReading(NamedTuple):
    """What a command line says.

    Attributes:
        fields: field name -> one word, several words (tuple fields) or a truth value.
        program: name in PROGRAM_FLAGS -> its word, or True.
        bad: names of fields whose value is missing or one too many.
        problems: one sentence each.
    """

    fields: dict[str, str | bool | tuple[str, ...]]
    program: dict[str, str | bool]
    bad: set[str]
    problems: list[str]


def read_flags(argv: Sequence[str], fields: Mapping[str, Field]) -> FlagReading:
    """Read a command line (without the program's name); never raises, mistakes are in `problems`."""
    reading = FlagReading({}, {}, set(), [])
    by_flag = {field.flag: field for field in fields.values()}
    for flag, words in _group(argv, reading.problems):
        name = flag[2:]
        negated = name.startswith("no-") and by_flag.get("--" + name[3:])
        if name in PROGRAM_FLAGS:
            _read_program(reading, name, words)
        elif flag in by_flag:
            _read_field(reading, by_flag[flag], flag, words)
        elif negated and negated.kind is bool:
            _read_field(reading, negated, flag, words)
        else:
            _refuse(reading, by_flag, name, words)
    return reading


def _group(argv: Sequence[str], problems: list[str]) -> list[tuple[str, list[str]]]:
    """The flags in order, each with the words that follow it."""
    groups: list[tuple[str, list[str]]] = []
    for word in ("--help" if word == "-h" else word for word in argv):
        if _FLAG.match(word):
            flag, equals, value = word.partition("=")
            groups.append((flag, [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            problems.append(f"{word}: a value without a flag before it; flags begin with --, see --help")
    return groups


def _read_program(reading: FlagReading, name: str, words: list[str]) -> None:
    value = _single(reading, f"--{name}", words, takes_value=PROGRAM_FLAGS[name] is not None)
    if name in reading.program:
        reading.problems.append(f"--{name}: given twice; keep one")
    elif value is not None:
        reading.program[name] = value


def _read_field(reading: FlagReading, field: Field, flag: str, words: list[str]) -> None:
    value: str | bool | tuple[str, ...] | None
    if field.kind is tuple:
        value = tuple(words) or None
        if not words:
            reading.problems.append(f"{flag}: a value is missing")
    else:
        value = _single(reading, flag, words, takes_value=field.kind is not bool)
    if value is None:
        reading.bad.add(field.name)
    elif field.name in reading.fields:
        both = f" (as {field.flag} and --no-{field.flag[2:]})" if flag != field.flag else ""
        reading.problems.append(f"{flag}: given twice{both}; keep one")
    else:
        reading.fields[field.name] = value if flag == field.flag else False


def _single(reading: FlagReading, flag: str, words: list[str], *, takes_value: bool) -> str | bool | None:
    """The one word after a flag (True for a flag that takes none), or None after a noted problem."""
    if not takes_value:
        if not words:
            return True
        reading.problems.append(f"{flag}: takes no value, but was given {' '.join(words)}; write {flag} alone")
        return None
    if len(words) == 1:
        return words[0]
    wrong = "a value is missing" if not words else f"takes one value, but was given {' '.join(words)}"
    reading.problems.append(f"{flag}: {wrong}")
    return None


def _refuse(reading: FlagReading, by_flag: Mapping[str, Field], name: str, words: list[str]) -> None:
    """Say what is wrong with a flag that is not ours: known and unsupported, or unknown."""
    known, why = refused_flag(name, words)
    if known:
        if why is not None:
            reading.problems.append(f"{' '.join(['--' + name, *words])}: {why}")
        return
    ours = [*by_flag, *(f"--no-{f.flag[2:]}" for f in by_flag.values() if f.kind is bool)]
    near = nearest_name(f"--{name}", [*ours, *(f"--{flag}" for flag in PROGRAM_FLAGS)])
    reading.problems.append(f"--{name}: unknown flag; " + (f"did you mean {near}?" if near else "see --help"))
