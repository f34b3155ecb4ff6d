"""The way in: a command line becomes one checked `Config`, or one error with every problem in it.

Precedence is preset (`--model`) < YAML (`--config`) < flags. Read next: `flags.py` and `yaml_file.py` (what
was said), `values.py` (one field), `validation.py` (fields against each other).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from contextlm.config.data_words import with_data_file
from contextlm.config.fields import Field, all_fields, build
from contextlm.config.flags import FlagReading, read_flags
from contextlm.config.help import help_text
from contextlm.config.presets import preset, preset_names
from contextlm.config.schema import Config
from contextlm.config.tokenizer_checks import SIZED_BY_FLAG
from contextlm.config.validation import validate
from contextlm.config.values import from_flag
from contextlm.config.yaml_file import YamlReading, read_yaml
from contextlm.errors import UserError

_STAGES = {
    "--num-layers",
    "--pipeline-model-parallel-size",
    "--decoder-first-pipeline-num-layers",
    "--decoder-last-pipeline-num-layers",
}
_CHUNKS = {"--num-layers-per-virtual-pipeline-stage", "--num-virtual-stages-per-pipeline-rank"}
# What a sentence calls that which follows from several values -> the flags of those values.
_BEHIND = {
    "data-parallel rank": {"--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--world-size"},
    "pipeline stage": _STAGES,
    "model chunk": _STAGES | _CHUNKS,
    "interleaved pipeline": _CHUNKS,
}


class ConfigurationError(UserError):
    """Every mistake of a command line.

    Args:
        output_dir: where a run would have written its `exit.json`, as far as that is known; None where none starts.
        problems: one sentence each.
    """

    def __init__(self, output_dir: str | None, *problems: str) -> None:
        super().__init__(*problems)
        self.output_dir = output_dir


class Invocation(NamedTuple):
    """What a command line asks for.

    Attributes:
        config: resolved and checked.
        dry_run: describe the run and start nothing.
        print_config: print the configuration and start nothing.
        world_size: number of processes; None only where nothing is started and none is named.
        warnings: what was given and is ignored, one sentence each.
        preflight_only: look whether the run could begin, and leave it at that.
    """

    config: Config
    dry_run: bool
    print_config: bool
    world_size: int | None
    warnings: tuple[str, ...]
    preflight_only: bool = False


def parse(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Invocation:
    """Resolve a command line (without the program's name).

    environ: where torchrun's WORLD_SIZE is looked up; os.environ if not given.

    Raises ConfigurationError with all problems of flags, YAML, preset and their combination; SystemExit(0) after
    `--help`.
    """
    fields = all_fields()
    flags = read_flags(argv, fields)
    if "help" in flags.program:
        print(help_text(fields))
        raise SystemExit(0)
    dry_run, print_config = "dry-run" in flags.program, "print-config" in flags.program
    starts = not (dry_run or print_config)
    problems, warnings = list(flags.problems), list(flags.warnings.values())
    if dry_run and print_config:
        problems.append("--dry-run and --print-config: a dry run prints the configuration too; keep one of the two")
    if "preflight-only" in flags.program and not starts:
        other = "--dry-run" if dry_run else "--print-config"
        problems.append(f"--preflight-only and {other}: the one opens data and folders, the other nothing; keep one")
    world_size = _world_size(flags, os.environ if environ is None else environ, starts, problems)
    config, bad = _resolve(fields, flags, problems, warnings)
    if world_size is None and "world-size" in flags.program:
        bad.add("--world-size")
    problems += _not_about(bad, validate(config, world_size, dry_run=not starts))
    if problems:
        raise ConfigurationError(config.output_dir if starts else None, *problems)
    preflight_only = "preflight-only" in flags.program
    return Invocation(config, dry_run, print_config, world_size, tuple(warnings), preflight_only)


def _resolve(
    fields: Mapping[str, Field], flags: FlagReading, problems: list[str], warnings: list[str]
) -> tuple[Config, set[str]]:
    """The tree, with defaults in place of bad values, and the flags of those; adds to `problems` and `warnings`."""
    reading = YamlReading(None, {}, set(), [], [])
    if isinstance(path := flags.program.get("config"), str):
        reading = read_yaml(path, fields)
        problems += reading.problems
        warnings += reading.warnings
    name = flags.program.get("model", reading.preset)
    values: dict[str, Any] = {}
    bad = set(flags.bad)
    if isinstance(name, str):
        try:
            where = "--model" if "model" in flags.program else f"{path}: preset"
            for section in preset(name, where).values():
                values.update(section)
        except UserError as error:
            problems += error.problems
            # Whatever a preset sets is not known now.
            bad.update(*preset(preset_names()[-1]).values())
    values.update(reading.values)
    bad.update(reading.bad)
    bad.difference_update(reading.values)
    given = with_data_file(flags, problems)
    for field_name in given.replaced:
        values.pop(field_name, None)
    bad = (bad - (given.replaced - flags.bad)) | given.bad
    for field_name, raw in given.fields.items():
        field = fields[field_name]
        bad.discard(field_name)
        try:
            values[field_name] = from_flag(field, raw, field.flag)
        except UserError as error:
            problems += error.problems
            bad.add(field_name)
    if "vocab_size" not in {*reading.values, *flags.fields} and values.get("tokenizer_type") in SIZED_BY_FLAG:
        values.pop("vocab_size", None)
    preset_name = name if isinstance(name, str) else None
    return build(values, preset_name), {fields[field_name].flag for field_name in bad}


def _world_size(flags: FlagReading, environ: Mapping[str, str], starts: bool, problems: list[str]) -> int | None:
    """Processes of the run: `--world-size` where nothing starts, else torchrun's, else one (or not said)."""
    given = flags.program.get("world-size")
    if given is not None and starts:
        problems.append(
            f"--world-size {given}: only with --dry-run; drop it, and start as many processes with torchrun"
        )
    elif given is not None:
        if re.fullmatch("[1-9][0-9]*", str(given)):
            return int(str(given))
        problems.append(f"--world-size: {given} is not accepted; give a whole number >= 1")
        return None
    started = environ.get("WORLD_SIZE", "")
    if started.isdigit() and int(started) > 0:
        return int(started)
    return 1 if starts else None


def _not_about(bad_flags: set[str], problems: list[str]) -> list[str]:
    """Drop what was concluded from a default that stands in for a bad value: it would mislead."""
    return [problem for problem in problems if not bad_flags & _flags_behind(problem)]


def _flags_behind(problem: str) -> set[str]:
    """The flags that a sentence names, and those that what it names follows from."""
    flags = set(re.findall(r"--[a-z0-9-]+", problem))
    return flags.union(*(behind for words, behind in _BEHIND.items() if words in problem))
