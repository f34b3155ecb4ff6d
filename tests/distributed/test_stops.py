"""Stops and faults that one rank notices: all ranks stop, at the same iteration, with the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed import stop_cases
from tests.distributed.pool import Pool

LAYOUTS = {"DP2": {}, "PP2": {"pipeline_model_parallel_size": 2}}


@pytest.fixture
def train(pool: Pool, tmp_path: Path):
    """Train under two ranks, of which something befalls one or both."""

    def train(folder: str, at: int = 0, what: str = "nothing", on_rank: int | None = None, **values: Any):
        place = str(tmp_path / folder)
        return pool.run(stop_cases.train_with, 2, folder=place, at=at, what=what, on_rank=on_rank, values=values)

    return train


def tracker(folder: Path) -> str:
    return (folder / "latest_checkpointed_iteration.txt").read_text().strip()


def test_a_signal_to_one_rank_stops_all_after_the_same_iteration(train, tmp_path: Path) -> None:
    for rank in train("run", 3, "signal", on_rank=1, train_iters=6):
        assert rank == {"stopped_by": "SIGUSR1", "iteration": 3, "fault": None, "handlers_are_back": True}
    assert tracker(tmp_path / "run") == "3"
    assert {rank["iteration"] for rank in train("run", train_iters=6)} == {6}
    train("whole", train_iters=6)
    assert stop_cases.losses(tmp_path / "run") == stop_cases.losses(tmp_path / "whole")


def test_ctrl_c_stops_all_as_a_signal_does(train, tmp_path: Path) -> None:
    for rank in train("run", 2, "Ctrl-C", train_iters=4):
        assert rank == {"stopped_by": "SIGINT", "iteration": 2, "fault": None, "handlers_are_back": True}
    assert tracker(tmp_path / "run") == "2"


def test_the_status_is_there_before_trackers_are_closed(pool: Pool, tmp_path: Path) -> None:
    assert pool.run(stop_cases.status_while_trackers_close, 1, folder=str(tmp_path)) == [75]


def test_a_stop_does_not_wait_for_an_evaluation_which_is_caught_up_on(train, tmp_path: Path) -> None:
    values = {"train_iters": 6, "eval_interval": 3, "eval_iters": 1}
    train("run", 3, "signal", **values)
    assert [line[:2] for line in stop_cases.told(tmp_path / "run")] == [(1, None), (2, None), (3, None)]
    train("run", **values)
    train("whole", **values)
    lines = stop_cases.told(tmp_path / "run")
    assert lines == stop_cases.told(tmp_path / "whole")
    assert [line[:2] for line in lines if line[1]] == [(3, "validation"), (6, "validation")]


def test_a_last_evaluation_that_fails_loses_no_training(train, tmp_path: Path) -> None:
    values = {"train_iters": 4, "eval_iters": 1}
    assert {rank["fault"][0] for rank in train("run", 4, "evaluation", **values)} == {"no memory to evaluate"}
    assert tracker(tmp_path / "run") == "4" and len(stop_cases.told(tmp_path / "run")) == 4
    for _ in range(2):  # it is caught up on, once
        assert {rank["iteration"] for rank in train("run", **values)} == {4}
        assert [line[:2] for line in stop_cases.told(tmp_path / "run")[4:]] == [(4, "validation")]


def test_the_end_of_its_time_stops_a_run(train, tmp_path: Path) -> None:
    """The pool's processes have run for longer than these microseconds."""
    for rank in train("run", exit_duration_in_mins=1e-6, train_iters=6):
        assert (rank["stopped_by"], rank["iteration"]) == (None, 1)
    assert tracker(tmp_path / "run") == "1"
    assert {rank["iteration"] for rank in train("far", exit_duration_in_mins=1e6, train_iters=2)} == {2}


@pytest.mark.parametrize(
    ("layout", "what", "values", "words"),
    [
        ("PP2", "weights", {}, "iteration 3: the loss is NaN or infinite"),
        ("DP2", "norm", {}, "iteration 3: the gradient norm is NaN or infinite"),
        ("PP2", "late", {"clip_grad": 0.0, "train_iters": 3}, "iteration 3: a weight has become NaN or infinite"),
    ],
)
def test_nan_stops_all_ranks_and_is_never_saved(train, tmp_path: Path, layout, what, values, words) -> None:
    given = {"save_interval": 2, "train_iters": 6} | LAYOUTS[layout] | values
    for rank in train("run", 3, what, on_nan="abort", **given):
        assert rank["fault"][0] == words
        assert f"the last good checkpoint is {tmp_path / 'run' / 'iter_0000002'}; " in rank["fault"][1]
    assert tracker(tmp_path / "run") == "2" and not (tmp_path / "run" / "iter_0000004").exists()
    # The control: without the check the run goes on, and saves it.
    goes_on = train("control", 3, what, check_for_nan_in_loss_and_grad=False, **given)
    assert {rank["fault"] for rank in goes_on} == {None} and tracker(tmp_path / "control") == str(given["train_iters"])


def test_an_overflow_under_a_loss_scale_that_adapts_is_no_fault(train, tmp_path: Path) -> None:
    ranks = train("run", fp16=True, initial_loss_scale=2.0**40, hysteresis=1, train_iters=3)
    assert {(rank["fault"], rank["iteration"]) for rank in ranks} == {(None, 3)}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("overflow", "iteration 4: from here on all gradients are NaN or infinite, even at the least loss scale"),
        ("weights", "iteration 2: a weight has become NaN or infinite"),
    ],
)
def test_a_loss_scale_that_adapts_hides_no_fault(train, what: str, words: str) -> None:
    """The scale is 4, 2 and 1 in the iterations that are spoilt; 1 is the least."""
    scale = {"fp16": True, "initial_loss_scale": 4.0, "hysteresis": 1}
    interval = {"log_interval": 1} if what == "overflow" else {"save_interval": 2}
    for rank in train("run", 2, what, train_iters=9, **scale, **interval):
        assert rank["fault"][0] == words


def test_a_rank_that_is_gone_has_words(pool: Pool) -> None:
    left, gone = pool.run(stop_cases.leave_alone, 2)
    assert gone is None and left[0].startswith("rank 0 lost contact with another rank: ")
    assert "last checkpoint" in left[1]


def test_what_another_job_has_taken_over_is_not_written_to(train, tmp_path: Path) -> None:
    """Rank 0 alone reads the lock; both stop, before the log line and the save."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").write_text('{"host": "elsewhere", "pid": 7, "since": "today"}\n')
    first, second = train("run", train_iters=2)
    assert "process 7 on elsewhere, started today has taken over this folder" in first["fault"][0]
    assert "another job has taken over this folder" in second["fault"][0]
    assert sorted(path.name for path in (tmp_path / "run").glob("iter_*")) == []
    assert stop_cases.told(tmp_path / "run") == []
