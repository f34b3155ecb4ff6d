"""Trackers and the profile: what can be profiled, and packages that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from contextlm.config.logging_checks import missing_packages
from contextlm.config.schema import LoggingConfig
from tests.unit.config.dry_problems import dry_problems


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("--profile", "--profile: has no folder for the trace; give --output-dir or --save"),
        ("--profile --save a --profile-step-end 10", "not after --profile-step-start 10; use at least 11"),
        ("--profile --save a --profile-ranks 0 4 x", "--profile-ranks 4 x: no such rank; use numbers from 0 to 3"),
        ("--profile --save a --train-iters 10", "the run is over by then (--train-iters 10); use at most 9"),
        ("--profile --save a --train-samples 40 --global-batch-size 4", "40, --global-batch-size 4); use at most 9"),
        ("--profile --save a --train-iters 0", "drop --profile"),
    ],
)
def test_problems(line: str, fragment: str) -> None:
    (problem,) = dry_problems(line, world_size=4)
    assert fragment in problem


@pytest.mark.parametrize(
    "line",
    [
        "--wandb-project a --wandb-exp-name b",
        "--profile --save a --profile-ranks 0 3",
        "--profile --save a --train-iters 11",
        "--profile --save a --train-samples 44 --global-batch-size 4",
    ],
)
def test_no_problem(line: str) -> None:
    assert dry_problems(line, world_size=4) == ()


def test_a_missing_package_is_named_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where W&B's own folder `wandb` lies in the current one, which can be imported as an empty package."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("wandb", "mlflow", "tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert missing_packages(LoggingConfig()) == []
    logging = LoggingConfig(tensorboard_dir="a", wandb_project="b", mlflow_experiment="c")
    assert missing_packages(logging) == [
        "--tensorboard-dir: tensorboard is not installed here; install it (pip install tensorboard), or drop it",
        "--wandb-project: wandb is not installed here; install it (pip install wandb), or drop it",
        "--mlflow-experiment: mlflow is not installed here; install it (pip install mlflow), or drop it",
    ]
    (tmp_path / "wandb" / "__init__.py").touch()
    assert len(missing_packages(logging)) == 2
