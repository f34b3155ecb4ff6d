"""From what a user wrote to a field's value, or to the sentence that says what is wrong with it.

Owns types, choices and bounds of single fields; whatever needs two fields is in `validation.py`.
"""

from __future__ import annotations

import math
import re
from typing import Any

from contextlm.config.fields import Field
from contextlm.config.megatron_flags import refused_value
from contextlm.config.suggestions import nearest_name
from contextlm.errors import UserError

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def from_flag(field: Field, raw: str | bool | tuple[str, ...], where: str) -> Any:
    """The value of the words after a flag. Raises UserError that begins with `where`."""
    if isinstance(raw, str) and not raw.strip():
        raise UserError(f"{where}: the value is empty (an unset shell variable?); give one or drop the flag")
    if field.kind is int and _WHOLE.fullmatch(str(raw)):
        return _checked(field, int(str(raw)), where, raw)
    if field.kind is float and _NUMBER.fullmatch(str(raw)):
        return _checked(field, float(str(raw)), where, raw)
    if field.kind in (int, float):
        raise UserError(f"{where}: {raw} is not accepted; give {expected(field)}")
    return _checked(field, raw, where, raw)


def from_yaml(field: Field, raw: Any, where: str) -> Any:
    """The value of a YAML node. Raises UserError that begins with `where`.

    PyYAML reads `6e-4` (no dot) as a string, so a number may arrive as one; for a whole number or a truth
    value only the real thing will do.
    """
    if raw is None and field.optional:
        return None
    if field.kind is float and isinstance(raw, str) and _NUMBER.fullmatch(raw):
        return _checked(field, float(raw), where, raw)
    if field.kind is float and isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return _checked(field, float(raw), where, raw)
    if field.kind is int and isinstance(raw, int) and not isinstance(raw, bool):
        return _checked(field, raw, where, raw)
    if field.kind is tuple and isinstance(raw, str):
        return tuple(raw.split())
    if field.kind is tuple and isinstance(raw, list) and all(_is_word(item) for item in raw):
        return tuple(str(item) for item in raw)
    if field.kind in (bool, str) and isinstance(raw, field.kind):
        return _checked(field, raw, where, raw)
    raise UserError(f"{where}: {in_yaml(raw)} is not accepted; give {expected(field)}")


def _checked(field: Field, value: Any, where: str, raw: Any) -> Any:
    """`value`, if the field's choices and bounds allow it; a complaint shows it as it was written, `raw`."""
    if field.choices is not None and value not in field.choices:
        known = refused_value(field.name, value)
        near = nearest_name(value, field.choices)
        hint = f" (did you mean {near}?)" if near else ""
        raise UserError(f"{where}: {known or f'{value!r} is not known; use {expected(field)}{hint}'}")
    if field.kind not in (int, float):
        return value
    low = field.minimum is not None and value < field.minimum
    high = field.maximum is not None and value > field.maximum
    at_most_floor = field.above is not None and value <= field.above
    if low or high or at_most_floor or not math.isfinite(value):
        raise UserError(f"{where}: {raw} is out of range; give {expected(field)}")
    return value


def in_yaml(raw: Any) -> str:
    """What stood in a YAML file, as it was written there."""
    return {None: "null", True: "true", False: "false"}[raw] if raw is None or isinstance(raw, bool) else repr(raw)


def expected(field: Field) -> str:
    """What the field takes, in words that can follow 'give' and 'use'."""
    if field.choices is not None:
        return "one of " + ", ".join(field.choices)
    noun = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text (put it in quotes)",
        tuple: "a list of words",
    }[field.kind]
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", field.minimum), (">", field.above), ("<=", field.maximum))
        if bound is not None
    ]
    return noun + (" " + " and ".join(bounds) if bounds else "")


def _is_word(item: Any) -> bool:
    """Whether a YAML list item can stand for one word of a command line."""
    return isinstance(item, (str, int, float)) and not isinstance(item, bool)
