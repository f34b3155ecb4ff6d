"""Options that would do nothing are refused where they are given; their defaults are not, nor is what was saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextlm.config import dump, parse
from contextlm.config.schema import Config
from tests.unit.config.dry_problems import dry_problems

WITHOUT = [
    ("--wandb-exp-name a", "--wandb-project x"),
    ("--wandb-save-dir a", "--wandb-project x"),
    ("--mlflow-tracking-uri a", "--mlflow-experiment x"),
    ("--profile-step-start 9", "--profile --save a"),
    ("--profile-step-end 13", "--profile --save a"),
    ("--profile-ranks 1", "--profile --save a --world-size 2"),
    ("--loss-scale 8", "--fp16"),
    ("--initial-loss-scale 8", "--fp16"),
    ("--min-loss-scale 8", "--fp16"),
    ("--loss-scale-window 8", "--fp16"),
    ("--hysteresis 8", "--fp16"),
    ("--async-save", "--save a"),
    ("--save-total-limit 2", "--save a"),
    ("--save-retain-interval 10", "--save a"),
    ("--save-best", "--save-interval 1000 --save a"),
    ("--lr-wsd-decay-style linear", "--lr-decay-style WSD --lr-wsd-decay-iters 1"),
]


@pytest.mark.parametrize(("line", "owner"), WITHOUT)
def test_what_belongs_to_an_option_that_is_not_given(line: str, owner: str, tmp_path: Path) -> None:
    (problem,) = dry_problems(line)
    assert problem.startswith(f"{line}: ") and owner.split()[0] in problem and "drop" in problem
    assert dry_problems(f"{line} {owner}") == ()
    (tmp_path / "saved.yaml").write_text(dump(parse(["--dry-run", *line.split(), *owner.split()], {}).config))
    assert dry_problems(f"--config {tmp_path}/saved.yaml", world_size=2) == ()


@pytest.mark.parametrize(
    "line",
    [
        "--profile --save a",
        "--async-save --save a",
        "--exit-interval 5",
        "--exit-duration-in-mins 1.5",
        "--signal-save-timeout-seconds 9",
    ],
)
def test_what_is_not_done_without_training(line: str, tmp_path: Path) -> None:
    (tmp_path / "iter_0000001").mkdir()
    skip = f"--skip-train --load {tmp_path}"
    (problem,) = dry_problems(f"{line} {skip}")
    assert problem == f"{line.removesuffix(' --save a')}: --skip-train trains nothing; drop one of the two"
    assert dry_problems(line) == dry_problems(skip) == ()


def test_a_constant_loss_scale_does_not_adapt() -> None:
    adapting = "--initial-loss-scale 8 --min-loss-scale 2 --loss-scale-window 3 --hysteresis 1"
    problems = dry_problems(f"--fp16 --loss-scale 4 {adapting}")
    assert len(problems) == 4 and all("--loss-scale 4 does not adapt; drop one" in problem for problem in problems)
    assert dry_problems(f"--fp16 {adapting}") == dry_problems("--fp16 --loss-scale 4") == ()


def test_a_default_is_not_given(tmp_path: Path) -> None:
    """Also where a file says it: a saved configuration names every option."""
    (tmp_path / "saved.yaml").write_text(dump(Config()))
    assert dry_problems(f"--config {tmp_path}/saved.yaml") == ()
