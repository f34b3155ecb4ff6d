"""What a few timed iterations say about a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contextlm.comparison.estimate import whole_run
from contextlm.comparison.runs import plan_runs
from contextlm.comparison.study import read_study
from contextlm.config.schema import DataConfig
from tests.unit.comparison.studies import study_tree, write_study


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 1),
        ({"context_chunk_size": 4}, 2),
        ({"context_chunk_size": 64}, 2),
        ({"context_chunk_size": 65}, 1),  # no chunk of a sample of 64 tokens is ever complete
        ({"context_chunk_size": 4, "eval_context_zeroed": False}, 1),
    ],
)
def test_iterations_and_passes_of_evaluations_are_counted(
    tmp_path: Path, options: dict[str, object], passes: int
) -> None:
    flags = study_tree()["flags"] | {"train_iters": 401, "eval_interval": 100, "eval_iters": 60}
    tree = study_tree() | {"flags": flags | options, "arms": {"one": {}, "other": {}}, "baselines": ["one"]}
    run = plan_runs(read_study(write_study(tmp_path, tree)), tmp_path, DataConfig())[0]
    metrics = tmp_path / "metrics.jsonl"
    slow_first = [900.0] * 5 + [100.0] * 25
    metrics.write_text("".join(json.dumps({"iteration": 1, "elapsed_ms": ms}) + "\n" for ms in slow_first))
    start = 20.0  # seconds besides the iterations
    found = whole_run(run, start + sum(slow_first) / 1000, metrics)
    assert found == pytest.approx(start + 0.1 * (401 + 5 * 60 * passes / 3))
