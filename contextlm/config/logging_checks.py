"""Which ways of telling can be had: what can be profiled, packages that must be there."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from contextlm.config.batch_checks import batch_problems
from contextlm.config.batch_ramp import num_iterations
from contextlm.config.schema import Config, LoggingConfig

_PACKAGES = {"tensorboard_dir": "tensorboard", "wandb_project": "wandb", "mlflow_experiment": "mlflow"}


def profile_problems(config: Config, world_size: int) -> list[str]:
    """What is wrong with the iterations and the ranks that are to be profiled."""
    logging = config.logging
    if not logging.profile:
        return []
    problems = _window(config, world_size)
    ranks = {str(rank) for rank in range(world_size)}
    if wrong := [word for word in logging.profile_ranks if word not in ranks]:
        problems.append(f"--profile-ranks {' '.join(wrong)}: no such rank; use numbers from 0 to {world_size - 1}")
    if config.output_dir is None:
        problems.append("--profile: has no folder for the trace; give --output-dir or --save")
    return problems


def _window(config: Config, world_size: int) -> list[str]:
    """The profiled iterations, against each other and against those of the run, where these are known."""
    start, end = config.logging.profile_step_start, config.logging.profile_step_end
    if end <= start:
        return [f"--profile-step-end {end}: not after --profile-step-start {start}; use at least {start + 1}"]
    if (length := _length(config, world_size)) is None or start < length.iterations:
        return []
    remedy = f"use at most {length.iterations - 1}" if length.iterations else "drop --profile"
    return [f"--profile-step-start {start}: the run is over by then ({length.origin}); {remedy}"]


class _Length(NamedTuple):
    """Iterations of the run, and the options that they follow from."""

    iterations: int
    origin: str


def _length(config: Config, world_size: int) -> _Length | None:
    """None where nothing says it, as in a dry run, or where the batches that it follows from are wrong."""
    training = config.training
    if training.train_samples is None:
        given = training.train_iters
        return None if given is None else _Length(given, f"--train-iters {given}")
    if world_size % config.parallel.model_parallel_size or batch_problems(config, world_size):
        return None
    batch = f"--global-batch-size {config.global_batch_size(world_size)}"
    return _Length(num_iterations(config, world_size), f"--train-samples {training.train_samples}, {batch}")


def missing_packages(logging: LoggingConfig) -> list[str]:
    """Flags whose package cannot be imported here."""
    return [
        f"{_flag(name)}: {package} is not installed here; install it (pip install {package}), or drop it"
        for name, package in _PACKAGES.items()
        if getattr(logging, name) is not None and not _is_installed(package)
    ]


def _is_installed(package: str) -> bool:
    """A folder of that name, such as W&B's own `wandb/`, is no package."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
