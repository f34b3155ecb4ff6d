"""The command line: words -> raw values by field, and everything that is wrong with them.

Why a reader of our own: argparse stops at the first error, accepts abbreviations, takes `-1,1,0` for an
option, and its defaults clobber values from YAML; jsonargparse and tyro give nested names
(`--model.num_layers`) where Megatron-LM's scripts say `--num-layers`. The whole grammar is: a word that
starts with `--` and a letter is a flag, every other word is a value of the flag before it; `--name=value`
is one value; a truth value is `--name` or `--no-name`. Nothing is abbreviated and nothing may be given
twice. Megatron-LM's flags that are not ours are judged by `megatron_flags.py`. Read next: `resolve.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from contextlm.config.fields import Field
from contextlm.config.megatron_flags import flag_verdict
from contextlm.config.suggestions import nearest_name

_FLAG = re.compile(r"--[A-Za-z]")

# Flags of the program rather than of the tree, and an example of their value.
PROGRAM_FLAGS: Mapping[str, str | None] = {
    "model": "contextlm-gpt2-124m",
    "config": "run.yaml",
    "data-args-path": "blend.txt",
    "data-config": "blend.yaml",
    "dry-run": None,
    "preflight-only": None,
    "print-config": None,
    "world-size": "8",
    "help": None,
}


class FlagReading(NamedTuple):
    """What a command line says.

    Attributes:
        fields: field name -> one word, several words (tuple fields) or a truth value.
        program: name in PROGRAM_FLAGS -> its word, or True.
        bad: names of fields whose value is missing or one too many.
        problems: one sentence each.
        warnings: flag -> the sentence that says why it is ignored.
    """

    fields: dict[str, str | bool | tuple[str, ...]]
    program: dict[str, str | bool]
    bad: set[str]
    problems: list[str]
    warnings: dict[str, str]


def read_flags(argv: Sequence[str], fields: Mapping[str, Field]) -> FlagReading:
    """Read a command line (without the program's name); never raises, mistakes are in `problems`."""
    reading = FlagReading({}, {}, set(), [], {})
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
            problems.append(
                f"{word}: a value without a flag before it; write its flag, which begins with --, before it"
            )
    return groups


def _read_program(reading: FlagReading, name: str, words: list[str]) -> None:
    example = PROGRAM_FLAGS[name]
    value = _single(reading, f"--{name}", words, example)
    if name in reading.program:
        reading.problems.append(_twice(f"--{name}", reading.program[name], value))
    elif value is not None:
        reading.program[name] = value


def _read_field(reading: FlagReading, field: Field, flag: str, words: list[str]) -> None:
    value: str | bool | tuple[str, ...] | None
    if field.kind is tuple:
        value = tuple(words) or None
        if not words:
            reading.problems.append(f"{flag}: a value is missing; write e.g. {flag} {field.sample}")
    else:
        value = _single(reading, flag, words, None if field.kind is bool else field.sample)
    if value is None:
        reading.bad.add(field.name)
    elif field.name in reading.fields:
        reading.problems.append(_twice(field.flag, reading.fields[field.name], value if flag == field.flag else False))
    else:
        reading.fields[field.name] = value if flag == field.flag else False


def _twice(flag: str, first: object, second: object) -> str:
    """What to say of a flag that came before, with the two things that it was given."""
    if first is second:
        return f"{flag}: given twice; keep one"
    if isinstance(first, bool):
        return f"{flag}: given twice, as {flag} and --no-{flag[2:]}; keep one"
    shown = (" ".join(value) if isinstance(value, tuple) else str(value) for value in (first, second))
    return f"{flag}: given twice, as {' and '.join(shown)}; keep one"


def _single(reading: FlagReading, flag: str, words: list[str], sample: str | None) -> str | bool | None:
    """The one word after a flag (True for a flag without a `sample`), or None after a noted problem."""
    if sample is None:
        if not words:
            return True
        reading.problems.append(f"{flag}: takes no value, but was given {' '.join(words)}; write {flag} alone")
        return None
    if len(words) == 1:
        return words[0]
    wrong = "a value is missing" if not words else f"takes one value, but was given {' '.join(words)}"
    reading.problems.append(f"{flag}: {wrong}; write e.g. {flag} {sample}")
    return None


def _refuse(reading: FlagReading, by_flag: Mapping[str, Field], name: str, words: list[str]) -> None:
    """Say what is wrong with a flag that is not ours: known and refused, known and ignored, or unknown."""
    if verdict := flag_verdict(name, words):
        sentence = f"{' '.join(['--' + name, *words])}: {verdict.sentence}"
        if verdict.refused:
            reading.problems.append(sentence)
        else:
            reading.warnings[name] = sentence
        return
    ours = [*by_flag, *(f"--no-{f.flag[2:]}" for f in by_flag.values() if f.kind is bool)]
    near = nearest_name(f"--{name}", [*ours, *(f"--{flag}" for flag in PROGRAM_FLAGS)])
    reading.problems.append(f"--{name}: unknown flag; " + (f"did you mean {near}?" if near else "see --help"))
