"""YAML files of the configuration: reading one of a user, writing the resolved one beside a checkpoint.

A file has the sections of the tree (`model: {num_layers: 4}`), or fields at its top level (`num_layers:
4`), with underscores or dashes; `preset: NAME` or `model: NAME` names a preset. What `dump` writes, `load`
reads back equal. PyYAML is imported where it is used: `--help` does without it. Read next: `resolve.py`, which puts
presets below and flags above what is read here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from contextlm import atomic_files
from contextlm.config.fields import Field, all_fields, build, sections
from contextlm.config.flags import PROGRAM_FLAGS
from contextlm.config.megatron_flags import flag_verdict
from contextlm.config.presets import preset
from contextlm.config.repeated_keys import repeated_keys
from contextlm.config.schema import Config
from contextlm.config.suggestions import nearest_name
from contextlm.config.values import from_yaml, in_yaml
from contextlm.errors import UserError

_WIDTH = 90


class YamlReading(NamedTuple):
    """What a file says: preset, checked values by field, fields with bad values, problems, ignored keys.

    In a file that cannot be read every field is bad: nobody knows what it would have said.
    """

    preset: str | None
    values: dict[str, Any]
    bad: set[str]
    problems: list[str]
    warnings: list[str]


def load(path: str | Path) -> Config:
    """The configuration in a file, over the preset it names. Raises UserError with every problem in it.

    Meant for the `config.yaml` of a checkpoint; `resolve.parse` is the way in for a run.
    """
    reading = read_yaml(path, all_fields())
    if reading.problems:
        raise UserError(*reading.problems)
    values: dict[str, Any] = {}
    for section in preset(reading.preset, f"{path}: preset").values() if reading.preset else ():
        values.update(section)
    return build({**values, **reading.values}, reading.preset)


def dump(config: Config, *, compact: bool = False) -> str:
    """YAML of every field by section, the preset's name first.

    compact: a section is a wrapped flow mapping instead of a line per field.
    """
    import yaml

    tree: dict[str, Any] = {"preset": config.preset}
    for section in sections():
        part = dataclasses.asdict(getattr(config, section))
        tree[section] = {name: list(value) if isinstance(value, tuple) else value for name, value in part.items()}
    if not compact:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    flows = {
        key: yaml.safe_dump(part, sort_keys=False, default_flow_style=True, width=_WIDTH, allow_unicode=True).strip()
        for key, part in tree.items()
        if isinstance(part, dict)
    }
    return "\n".join([f"preset: {config.preset or 'null'}", *(f"{key}: {flow}" for key, flow in flows.items())]) + "\n"


def write(config: Config, path: Path) -> None:
    """Write what `dump` says to a file, atomically; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_bytes(path, dump(config).encode())


def read_yaml(path: str | Path, fields: Mapping[str, Field]) -> YamlReading:
    """Read a file; never raises for what a user can mend, mistakes are in `problems`."""
    import yaml

    reading = YamlReading(None, {}, set(), [], [])
    unreadable = YamlReading(None, {}, set(fields), [], [])
    try:
        text = Path(path).read_text(encoding="utf-8")
        problems = [f"{path}: {problem}" for problem in repeated_keys(text)]
        tree = yaml.safe_load(text)
    except OSError as error:
        return unreadable._replace(problems=[f"--config {path}: {error.strerror}; give an existing YAML file"])
    except UnicodeDecodeError:
        return unreadable._replace(problems=[f"--config {path}: is no UTF-8 text; give a YAML file"])
    except (yaml.YAMLError, ValueError) as error:  # a date that no calendar has is a ValueError
        return unreadable._replace(problems=[f"--config {path}: not valid YAML: {_cause(error)}"])
    reading.problems.extend(problems)
    if tree is None:
        return reading
    if not isinstance(tree, dict):
        return unreadable._replace(problems=[f"--config {path}: holds no keys; write lines such as `num_layers: 4`"])
    names = [str(node) for key in ("preset", "model") if isinstance(node := tree.get(key), str)]
    if len(names) > 1:
        reading.problems.append(f"{path}: the preset is given twice ({' and '.join(names)}); keep one")
    for key, node in tree.items():
        _read_top(reading, fields, str(key), node, str(path))
    return reading._replace(preset=names[0] if names else None)


def _cause(error: Exception) -> str:
    """What PyYAML says, without its drawing of the place."""
    if mark := getattr(error, "problem_mark", None):
        return f"{error.problem}; mend line {mark.line + 1}"  # type: ignore[attr-defined]
    return f"{' '.join(str(error).split())}; mend that"


def _read_top(reading: YamlReading, fields: Mapping[str, Field], key: str, node: Any, path: str) -> None:
    """One top-level key: the preset's name, a section, or a field."""
    if key == "preset" or (key == "model" and isinstance(node, str)):
        if node is not None and not isinstance(node, str):
            reading.problems.append(
                f"{path}: preset: {in_yaml(node)} is not the name of a preset; give one, e.g. gpt2-124m"
            )
    elif key not in sections():
        _read_field(reading, fields, key, node, path, section=None)
    elif isinstance(node, dict):
        for name, raw in node.items():
            _read_field(reading, fields, str(name), raw, path, section=key)
    elif node is not None:
        reading.problems.append(
            f"{path}: {key}: {node!r} is not a section; write `{key}:` and its fields indented below"
        )


def _read_field(
    reading: YamlReading, fields: Mapping[str, Field], key: str, raw: Any, path: str, section: str | None
) -> None:
    """One field, at the top level (`section` None) or in a section."""
    name = key.replace("-", "_")
    where = f"{path}: {section + '.' if section else ''}{key}"
    if name not in fields:
        _note_unknown(reading, fields, name, raw, where)
    elif section not in (None, fields[name].section):
        reading.problems.append(f"{where}: belongs to the section {fields[name].section}; move it there")
    elif name in reading.values or name in reading.bad:
        reading.problems.append(f"{where}: {name} is given twice; keep one")
    else:
        try:
            reading.values[name] = from_yaml(fields[name], raw, where)
        except UserError as error:
            reading.bad.add(name)
            reading.problems.extend(error.problems)


def _note_unknown(reading: YamlReading, fields: Mapping[str, Field], name: str, raw: Any, where: str) -> None:
    """Say why a key that is no field of ours is refused or ignored, unless it asks for nothing."""
    words = [] if raw is True else [str(item) for item in raw] if isinstance(raw, list) else [str(raw)]
    flag = name.replace("_", "-")
    verdict = flag_verdict(flag, words)
    if flag in PROGRAM_FLAGS:
        reading.problems.append(f"{where}: is no key; give --{flag} on the command line")
    elif verdict is None:
        near = nearest_name(name, [*fields, *sections(), "preset"])
        reading.problems.append(f"{where}: unknown key; " + (f"did you mean {near}?" if near else "see --help"))
    elif raw not in (False, None):
        sentences = reading.problems if verdict.refused else reading.warnings
        sentences.append(f"{where}: {in_yaml(raw)}: {verdict.sentence}")
