"""Options that ask for nothing, because what they belong to is not there: an option is never ignored in silence.

An option is taken for given where its value is not its default, so that a saved configuration, which names every
option, reads back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextlm.config.fields import Field, all_fields, typed
from contextlm.config.schema import Config

# Option -> the option without which it does nothing.
_BELONGS_TO = {
    "allow_changed_options": "load",
    "wandb_exp_name": "wandb_project",
    "wandb_save_dir": "wandb_project",
    "mlflow_tracking_uri": "mlflow_experiment",
    "profile_step_start": "profile",
    "profile_step_end": "profile",
    "profile_ranks": "profile",
    "loss_scale": "fp16",
    "initial_loss_scale": "fp16",
    "min_loss_scale": "fp16",
    "loss_scale_window": "fp16",
    "hysteresis": "fp16",
    "fp8_recipe": "fp8_format",
    "async_save": "save",
    "save_total_limit": "save",
    "save_retain_interval": "save",
    "save_best": "save_interval",
}
# What a loss scale that adapts itself is told, and a constant one, --loss-scale, is not.
_OF_ADAPTING = ("initial_loss_scale", "min_loss_scale", "loss_scale_window", "hysteresis")
# What training does, and `--skip-train` does not.
_OF_TRAINING = (
    "profile",
    "exit_interval",
    "exit_duration_in_mins",
    "on_nan",
    "skip_spikes",
    "iterations_to_skip",
    "signal_save_timeout_seconds",
    "async_save",
    "save_total_limit",
    "save_retain_interval",
    "save_best",
)


def idle_problems(config: Config) -> list[str]:
    """Every option that is given and would do nothing."""
    fields = all_fields()
    given = {name: value for name, field in fields.items() if (value := _value(config, field)) != field.default}
    problems = [
        f"{_typed(fields, given, name)}: asks for nothing without {fields[owner].flag}; give that, or drop it"
        for name, owner in _BELONGS_TO.items()
        if name in given and owner not in given
    ]
    if config.optimizer.lr_decay_style != "WSD" and "lr_wsd_decay_style" in given:
        problems.append(f"{_typed(fields, given, 'lr_wsd_decay_style')}: of --lr-decay-style WSD; add it, or drop this")
    if not config.training.exit_signal_handler and "signal_save_timeout_seconds" in given:
        words = _typed(fields, given, "signal_save_timeout_seconds")
        problems.append(f"{words}: --no-exit-signal-handler saves at no signal; drop one of the two")
    if config.training.fp16 and "loss_scale" in given:
        problems += [
            f"{_typed(fields, given, name)}: --loss-scale {config.optimizer.loss_scale:g} does not adapt; drop one of "
            "the two"
            for name in _OF_ADAPTING
            if name in given
        ]
    if config.training.skip_train:
        problems += [
            f"{_typed(fields, given, name)}: --skip-train trains nothing; drop one of the two"
            for name in _OF_TRAINING
            if name in given
        ]
    return problems


def _value(config: Config, field: Field) -> Any:
    return getattr(getattr(config, field.section), field.name)


def _typed(fields: Mapping[str, Field], given: Mapping[str, Any], name: str) -> str:
    """The option as it may have been typed."""
    return fields[name].flag if given[name] is True else f"{fields[name].flag} {typed(given[name])}"
