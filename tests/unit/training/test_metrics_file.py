"""metrics.jsonl is cut back, and an evaluation that is made again takes the place of the older one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextlm.training.metrics_file import MetricsFile


def line(iteration: int, split: str | None = None, loss: float = 1.0) -> dict[str, Any]:
    return {"iteration": iteration, **({"split": split} if split else {}), "lm_loss": loss}


def written(file: MetricsFile) -> list[tuple[int, str | None, float]]:
    assert file.path is not None
    lines = [json.loads(text) for text in file.path.read_text().splitlines()]
    return [(one["iteration"], one.get("split"), one["lm_loss"]) for one in lines]


def test_an_evaluation_takes_the_place_of_its_predecessor(tmp_path: Path) -> None:
    file = MetricsFile(str(tmp_path / "new"))
    file.replace([line(2, "test")])
    assert written(file) == [(2, "test", 1.0)]
    file = MetricsFile(str(tmp_path))
    file.append([line(1), line(2), line(2, "validation"), line(3)])
    file.replace([line(2, "validation", 5.0), line(2, "test", 6.0)])
    assert written(file) == [(1, None, 1), (2, None, 1), (2, "validation", 5.0), (2, "test", 6.0), (3, None, 1)]
    assert file.splits_at(2) == {"validation", "test"} and file.splits_at(3) == set()


def test_cutting_back_keeps_the_evaluations_of_that_iteration(tmp_path: Path) -> None:
    file = MetricsFile(str(tmp_path))
    file.append([line(1), line(2), line(2, "validation"), line(3), line(3, "validation")])
    with open(tmp_path / "metrics.jsonl", "a") as half:
        half.write('{"iteration": 4, "lm_')
    assert file.cut_back(2) == 0 and written(file) == [(1, None, 1), (2, None, 1), (2, "validation", 1)]
