"""The configuration tree as a flat list of fields: what flags, YAML, `--help` and the checks walk over.

Owns the mapping between a dataclass field and its flag, and the tree that is built from flat values. Read
next: `values.py`, which turns what a user wrote into a field's value.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from contextlm.config.schema import Config


@dataclasses.dataclass(frozen=True)
class Field:
    """One value of the tree.

    `kind` is int, float, bool, str or tuple (several words); `optional` says that None is a value. The rest
    is what `option` stored.
    """

    name: str
    section: str
    kind: type
    optional: bool
    default: Any
    help: str
    example: Any
    choices: tuple[str, ...] | None
    minimum: float | None
    maximum: float | None
    above: float | None

    @property
    def flag(self) -> str:
        """The flag as it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def sample(self) -> str:
        """A value as it may be typed after the flag: the example, else the default, else the first choice."""
        return typed(self.example or self.default or (self.choices or ("",))[0])


def typed(value: Any) -> str:
    """A value as it is typed on a command line; an absent one is called none."""
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return "none" if value is None else str(value)


def sections() -> dict[str, type]:
    """Section name -> dataclass, in the order of the tree."""
    hints = typing.get_type_hints(Config)
    return {f.name: hints[f.name] for f in dataclasses.fields(Config) if dataclasses.is_dataclass(hints[f.name])}


def all_fields() -> dict[str, Field]:
    """Field name -> field. Names are unique over all sections, since each is also a flag."""
    found: dict[str, Field] = {}
    for section, section_class in sections().items():
        hints = typing.get_type_hints(section_class)
        for entry in dataclasses.fields(section_class):
            assert entry.name not in found, f"two fields are called {entry.name}"
            kind, optional = _kind(hints[entry.name])
            found[entry.name] = Field(
                name=entry.name,
                section=section,
                kind=kind,
                optional=optional,
                default=entry.default,
                **entry.metadata,
            )
    return found


def build(values: Mapping[str, Any], preset: str | None) -> Config:
    """The tree in which the named fields have the given values and the others their defaults."""
    fields = all_fields()
    parts: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for name, value in values.items():
        parts[fields[name].section][name] = value
    return Config(preset=preset, **{name: cls(**parts[name]) for name, cls in sections().items()})


def _kind(hint: Any) -> tuple[type, bool]:
    """The plain type behind a field's annotation, and whether None is allowed beside it."""
    if isinstance(hint, types.UnionType):
        (kind,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return kind, True
    return typing.get_origin(hint) or hint, False
