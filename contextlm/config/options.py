"""How one configuration field is written down: its default, its sentence, its choices.

Every flag, YAML key, `--help` line and row of the documentation is generated from what `option`
stores in the field's metadata, so a field is described in one place only. Read next: `sections/model.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    example: Any = None,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
) -> Any:
    """A dataclass field that is also a flag and a YAML key.

    Args:
        default: the value when neither preset, YAML nor flag gives one.
        help: one sentence; units included.
        example: a value that `--help` shows, where the default is none or 0 and there are no choices.
        choices: the only accepted words, if the field is a word.
        minimum, maximum: inclusive bounds of a number.
        above: exclusive lower bound of a number.
    """
    meta = {
        "help": help,
        "example": example,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
    }
    return dataclasses.field(default=default, metadata=meta)
