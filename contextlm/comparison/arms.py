"""The arms of a study: options -> configurations that differ in the model and in nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.matching import Match, match
from contextlm.analysis.parameters import count_parameters
from contextlm.config import Config, parse
from contextlm.config.blend import parse_split
from contextlm.config.flags import PROGRAM_FLAGS
from contextlm.errors import UserError

# The study gives these to each run itself, or a run of it cannot have them; of the program's own a preset is left.
_OURS = {
    "seed", "save", "load", "output_dir", "data_path", "train_data_path", "valid_data_path", "test_data_path",
    "multiple_validation_sets", "tokenizer_type", "tokenizer_model", "vocab_file", "merge_file",
    "tiktoken_pattern", "tiktoken_num_special_tokens", "eod_token", "vocab_size", "exit_interval",
    "exit_duration_in_mins", "skip_train", "finetune",
} | {name.replace("-", "_") for name in PROGRAM_FLAGS if name != "model"}  # fmt: skip
MATCH_KEYS = ("match", "of", "by")


@dataclass(frozen=True)
class Arm:
    """One model of the study.

    Attributes:
        config: its configuration, without data, seed and places.
        parameters, flops_per_token: its budget; FLOPs are those of training.
        match: how it was matched; None where its sizes are given.
        budget, of: what was made equal, and to which arm.
    """

    name: str
    config: Config
    parameters: int
    flops_per_token: float
    match: Match | None = None
    budget: str | None = None
    of: str | None = None


def build_arms(
    shared: Mapping[str, Any], options: Mapping[str, dict[str, Any]], vocab_size: int, problems: list[str]
) -> dict[str, Arm]:
    """The arms by name; mistakes are added to `problems`, and no arm is built then.

    Args:
        shared: options of all arms by field name.
        options: those of each arm, with `match`, `of` and `by` where it is to be matched.
        vocab_size: of the tokenizer.
    """
    problems += [f"flags.{key}: says what one arm is matched to; move it there" for key in MATCH_KEYS if key in shared]
    common = _usable("flags", shared, problems)
    configs: dict[str, Config] = {}
    found: dict[str, list[str]] = {}  # problem -> the arms that have it
    for name, own in options.items():
        words = _words(common | _usable(f"arms.{name}", own, problems))
        try:
            configs[name] = parse(["--dry-run", *words, "--save", "runs", "--load", "runs"], {}).config
        except UserError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(name)
    for problem, names in found.items():
        where = ["flags"] if len(names) == len(options) else [f"arms.{name}" for name in names]
        problems += [f"{place}: {problem}" for place in where]
    problems += _unpaired(configs)
    return {} if problems else {name: _arm(name, options[name], configs, vocab_size) for name in options}


def _usable(where: str, options: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The options that can stand on a command line; the others are added to `problems`."""
    usable = {}
    for name, value in options.items():
        if name in _OURS:
            why = "the study sets it for each run; drop it" + (" (see seeds)" if name == "seed" else "")
            problems.append(f"{where}.{name}: {why}")
        elif not all(map(_is_word, value if isinstance(value, list) else [value])):
            problems.append(f"{where}.{name}: {value!r} is no value; give a word, a number, true or false, or a list")
        elif name not in MATCH_KEYS:
            usable[name] = value
    return usable


def _is_word(value: Any) -> bool:
    """Whether a value can be one word of a command line, and would not be taken for a flag there."""
    if isinstance(value, str):
        return not value.startswith("--") and value != "-h"
    return value is None or isinstance(value, bool | int | float)


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is True or value is False:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _unpaired(configs: Mapping[str, Config]) -> list[str]:
    """What would spoil the pairs: other tokens, another order, or no validation loss to compare."""
    if not configs:
        return []
    problems, (first_name, first) = [], next(iter(configs.items()))
    for name, config in configs.items():
        ours, theirs = _tokens(config), _tokens(first)
        problems += [
            f"arms.{name}: {key.replace('_', '-')} {ours[key]}, but {first_name} has {theirs[key]}; all arms read the "
            "same tokens in the same order: write it under flags"
            for key in ours
            if ours[key] != theirs[key]
        ]
    if first.training.train_iters is None:
        problems.append("flags: --train-iters is missing; give the number of optimizer steps, e.g. train_iters: 3000")
    if first.training.eval_iters == 0 or not parse_split(first.data.document_split)[1]:
        problems.append("flags: no validation loss to compare; give eval_iters > 0 and a split with a second part")
    return problems


def _tokens(config: Config) -> dict[str, Any]:
    """What decides which tokens a run reads, and when."""
    settings = dataclasses.asdict(config.training) | dataclasses.asdict(config.data)
    return settings | {"seq_length": config.model.seq_length}


def _arm(name: str, own: Mapping[str, Any], configs: Mapping[str, Config], vocab_size: int) -> Arm:
    config, found = configs[name], None
    if "match" in own:
        found = match(config, configs[own["of"]], own["match"], own["by"], vocab_size)
        config = found.config
    return Arm(
        name,
        config,
        count_parameters(config, vocab_size).total,
        training_flops_per_token(config, vocab_size),
        found,
        own.get("match"),
        own.get("of"),
    )
