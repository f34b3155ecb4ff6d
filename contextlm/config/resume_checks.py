"""Checks of `--allow-changed-options`: which options may be changed by leave when a run is continued."""

from __future__ import annotations

from contextlm.config.option_changes import ALLOWABLE, CLASSES, OF_THE_TOKENIZER, OF_THE_WEIGHTS
from contextlm.config.schema import CheckpointConfig
from contextlm.config.suggestions import nearest_name


def allowed_names(checkpoint: CheckpointConfig) -> set[str]:
    """Names of fields whose change is allowed; with dashes, underscores or as flags in a YAML file."""
    return {_name(word) for word in checkpoint.allow_changed_options}


def allowed_problems(checkpoint: CheckpointConfig) -> list[str]:
    """What is wrong with the options that are allowed to change."""
    return [problem for word in checkpoint.allow_changed_options for problem in _problem(word)]


def _problem(word: str) -> list[str]:
    name, flag = _name(word), f"--allow-changed-options {word}"
    if name in ALLOWABLE:
        return []
    if name in (*OF_THE_WEIGHTS, *OF_THE_TOKENIZER):
        return [f"{flag}: the checkpoint's weights mean nothing without it; begin from scratch to change it"]
    if any(name in names for _, _, names in CLASSES):
        return [f"{flag}: may be changed without leave; drop it"]
    near = nearest_name(name, list(ALLOWABLE))
    hint = f"did you mean {near.replace('_', '-')}?" if near else "see docs/options.md for those that need leave"
    return [f"{flag}: is no option; {hint}"]


def _name(word: str) -> str:
    return word.lstrip("-").replace("-", "_")
