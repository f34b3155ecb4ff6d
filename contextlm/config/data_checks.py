"""Checks of where the data of each split comes from and what is evaluated, before any file is looked at."""

from __future__ import annotations

from contextlm.config.blend import is_number, parse_split
from contextlm.config.schema import Config, DataConfig
from contextlm.config.split_data import own_paths
from contextlm.errors import UserError


def split_problems(config: Config) -> list[str]:
    """Options that say where data comes from, or what is evaluated, against each other."""
    return [*_one_way(config.data), *_several_sets(config), *_evaluation(config)]


def missing_data(config: Config) -> list[str]:
    """The data that a run, unlike a dry run, cannot do without."""
    data = config.data
    if config.training.skip_train:
        if data.data_path or data.valid_data_path or data.test_data_path:
            return []
        return ["--valid-data-path: missing; --skip-train evaluates, so give it, --test-data-path or --data-path"]
    if data.per_split and not data.train_data_path:
        return ["--train-data-path: missing beside the paths of other splits; give the training data"]
    if not data.data_path and not data.per_split:
        return ["--data-path: missing; give a dataset prefix made by tools/preprocess_data.py"]
    return []


def _one_way(data: DataConfig) -> list[str]:
    given = [f"{flag} {' '.join(words)}" for flag, words in own_paths(data) if words]
    problems = []
    if given and data.data_path:
        problems.append(
            f"{given[0]}: --data-path {' '.join(data.data_path)} is divided by --split; give the training data as "
            "--train-data-path, or drop the paths of single splits"
        )
    if given and data.split is not None:
        problems.append(
            f"--split {data.split}: divides --data-path, but {given[0]} is taken whole; keep one of the two"
        )
    return problems


def _several_sets(config: Config) -> list[str]:
    words = config.data.valid_data_path
    if not config.training.multiple_validation_sets:
        return []
    if not words:
        return ["--multiple-validation-sets: of the datasets of --valid-data-path, which is missing; add it"]
    weights = [word for word in words[::2] if is_number(word)]
    if not weights:
        return []
    return [
        f"--valid-data-path {' '.join(words)}: with --multiple-validation-sets each set has a loss of its own, so a "
        "weight says nothing; give the prefixes alone"
    ]


def _evaluation(config: Config) -> list[str]:
    training, problems = config.training, []
    if training.full_validation and training.eval_iters == 0:
        problems.append("--full-validation: --eval-iters 0 asks for no evaluation; drop one of the two")
    if training.full_validation and (origin := _no_validation(config.data)):
        problems.append(f"--full-validation: {origin}; give validation data, or drop it")
    if training.skip_train and training.eval_iters == 0 and not training.full_validation:
        problems.append("--skip-train: only evaluates, and --eval-iters 0 asks for none; drop one of the two")
    if training.skip_train and config.checkpoint.load is None:
        problems.append("--skip-train: evaluates a checkpoint, but none is given; add --load FOLDER")
    return problems


def _no_validation(data: DataConfig) -> str | None:
    """Why there are no validation data at all, if there are others."""
    if data.per_split:
        return None if data.valid_data_path or data.data_path else "--valid-data-path is missing"
    try:
        empty = bool(data.data_path) and parse_split(data.document_split)[1] == 0
    except UserError:
        return None  # told by the checks of --split
    return f"--split {data.document_split} leaves nothing for validation" if empty else None
