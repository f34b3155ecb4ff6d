"""The words of `--data-path` and its kin, where a file says them: `--data-args-path` or `--data-config`.

Used by `resolve.py`, before single values are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from contextlm.config.blend import read_blend
from contextlm.config.data_config import LISTS, read_data_config
from contextlm.config.flags import FlagReading
from contextlm.errors import UserError


class DataWords(NamedTuple):
    """What the command line says, with what its data file says.

    Attributes:
        fields: field name -> what was typed.
        replaced: fields that the data file decides, whatever the YAML file of `--config` says.
        bad: fields that a data file with mistakes would have decided.
    """

    fields: Mapping[str, Any]
    replaced: frozenset[str] = frozenset()
    bad: frozenset[str] = frozenset()


def with_data_file(flags: FlagReading, problems: list[str]) -> DataWords:
    """The fields of the command line and of the data file that it names; adds to `problems`."""
    words, blend = flags.program.get("data-args-path"), flags.program.get("data-config")
    if isinstance(blend, str):
        return _with_data_config(blend, flags, problems)
    if not isinstance(words, str):
        return DataWords(flags.fields)
    if "data_path" in flags.fields:
        problems.append(f"--data-args-path {words}: --data-path is given too; keep one of the two")
        return DataWords(flags.fields)
    try:
        return DataWords({**flags.fields, "data_path": read_blend(words)})
    except UserError as error:
        problems += error.problems
        return DataWords(flags.fields, bad=frozenset({"data_path"}))


def _with_data_config(path: str, flags: FlagReading, problems: list[str]) -> DataWords:
    paths = frozenset(LISTS.values())
    others = [f"--{name.replace('_', '-')}" for name in LISTS.values() if name in flags.fields]
    others += ["--data-args-path"] if "data-args-path" in flags.program else []
    problems += [f"--data-config {path}: {other} is given too; keep one of the two" for other in others]
    try:
        said = read_data_config(path)
    except UserError as error:
        problems += error.problems
        return DataWords(flags.fields, replaced=paths, bad=paths | {"split"})
    if "split" in flags.fields and "split" in said:
        problems.append(f"--split {flags.fields['split']}: --data-config {path} has a split too; keep one of the two")
    replaced = paths if said.keys() == {"data_path"} else paths | {"split"}
    return DataWords({**said, **flags.fields}, replaced)
