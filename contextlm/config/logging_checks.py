"""Which ways of telling can be had: options that belong together, packages that must be there."""

from __future__ import annotations

import importlib.util

from contextlm.config.schema import Config, LoggingConfig

_PACKAGES = {"tensorboard_dir": "tensorboard", "wandb_project": "wandb", "mlflow_experiment": "mlflow"}
_BELONGS_TO = {
    "wandb_exp_name": "wandb_project",
    "wandb_save_dir": "wandb_project",
    "mlflow_tracking_uri": "mlflow_experiment",
}


def logging_problems(config: Config, world_size: int) -> list[str]:
    """What the options of the section forbid each other."""
    logging = config.logging
    problems = [
        f"{_flag(name)} {getattr(logging, name)}: asks for nothing without {_flag(owner)}; give that, or drop it"
        for name, owner in _BELONGS_TO.items()
        if getattr(logging, name) is not None and getattr(logging, owner) is None
    ]
    return problems + (_profile(config, world_size) if logging.profile else [])


def _profile(config: Config, world_size: int) -> list[str]:
    logging, problems = config.logging, []
    if logging.profile_step_end <= logging.profile_step_start:
        problems.append(
            f"--profile-step-end {logging.profile_step_end}: not after --profile-step-start "
            f"{logging.profile_step_start}; use at least {logging.profile_step_start + 1}"
        )
    ranks = {str(rank) for rank in range(world_size)}
    if wrong := [word for word in logging.profile_ranks if word not in ranks]:
        problems.append(f"--profile-ranks {' '.join(wrong)}: no such rank; use numbers from 0 to {world_size - 1}")
    if config.output_dir is None:
        problems.append("--profile: has no folder for the trace; give --output-dir or --save")
    return problems


def missing_packages(logging: LoggingConfig) -> list[str]:
    """Flags whose package cannot be imported here."""
    return [
        f"{_flag(name)}: {package} is not installed here; pip install {package}, or drop it"
        for name, package in _PACKAGES.items()
        if getattr(logging, name) is not None and not _is_installed(package)
    ]


def _is_installed(package: str) -> bool:
    """A folder of that name, such as W&B's own `wandb/`, is no package."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
