"""What follows an iteration that is NaN: skip, abort, roll back; what is told, counted and written about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import policy_cases as cases
from tests.distributed.pool import Pool

PP2 = {"pipeline_model_parallel_size": 2}


@pytest.fixture
def train(pool: Pool, tmp_path: Path):
    """Train on two ranks in a folder."""

    def train(folder: str, bad: dict[int, int], rank: int | None = None, **values: Any) -> list[dict[str, Any]]:
        return pool.run(cases.train, 2, folder=str(tmp_path / folder), values=values, bad=bad, rank=rank)

    return train


def losses(folder: Path) -> list[float | None]:
    return [line["lm_loss"] for line in cases.lines(folder)]


def test_a_skipped_iteration_is_told_counted_and_described(train, tmp_path: Path) -> None:
    (_, last) = train("run", {3: 1, 6: 1}, rank=0, exit_interval=4)
    (_, resumed) = train("run", {6: 1}, rank=0)
    assert last["fault"] is resumed["fault"] is None and resumed["iteration"] == 8
    folder = tmp_path / "run"
    assert [line["skipped"] for line in cases.lines(folder)] == [
        None,
        None,
        "nan loss",
        None,
        None,
        "nan loss",
        None,
        None,
    ]
    counts = [line for line in last["said"] if "number of skipped iterations" in line]
    assert ["iterations:   0 | number of nan iterations:   0" in line for line in counts] == [True, False]
    assert "iterations:   1 | number of nan iterations:   1" in counts[1] and "lm loss: nan" not in counts[1]
    assert cases.facts(folder, 4) == {"skipped_iterations": [[3, "nan loss"]], "skipped_in_all": {"nan loss": 1}}
    assert cases.facts(folder, 8)["skipped_iterations"] == [[3, "nan loss"], [6, "nan loss"]]
    # Two ranks with two micro-batches each: those of rank 0 are samples 8 and 10.
    told = cases.dump(folder, 3)
    assert told["why"] == "the loss is NaN or infinite" and (told["lm_loss"], told["grad_norm"]) == ("nan", "nan")
    assert told["ranks_with_nan_loss"] == [0] and told["consumed_samples"] == 8 and told["global_batch_size"] == 4
    bad, good = told["micro_batches"][:2], told["micro_batches"][2:]
    assert sorted(batch["samples"][0] for batch in bad) == [8, 10] and {batch["lm_loss"] for batch in bad} == {"nan"}
    assert all(5 < batch["lm_loss"] < 8 for batch in good)
    assert sorted(told["texts"]) == ["10", "11", "8", "9"] and all(told["texts"].values())
    assert told["checkpoint_before"] is None
    assert cases.dump(folder, 6)["checkpoint_before"] == str(folder / "iter_0000004")
    assert cases.dump(folder, 6)["replay"].endswith(f"tools/replay_step.py --load {folder} --iteration 6")
    assert set(told["layers"]) == {
        "embedding", "decoder.layers.0", "decoder.layers.1", "decoder.layers.2", "decoder.layers.3",
        "decoder.final_layernorm", "context_head",
    }  # fmt: skip
    assert all(norms["weight_norm"] > 0 and "grad_norm" in norms for norms in told["layers"].values())


def test_the_third_in_a_row_stops_the_run(train, tmp_path: Path) -> None:
    for rank in train("run", dict.fromkeys((2, 5, 6, 7), 1), rank=1, log_interval=8, **PP2):
        assert rank["fault"][0] == "iteration 7: the loss is NaN or infinite, as in the 2 before it"
        assert f"the last good checkpoint is {tmp_path / 'run' / 'iter_0000004'}; " in rank["fault"][1]
        assert f"{tmp_path / 'run' / 'bad_steps'} describes" in rank["fault"][1]
    assert not (tmp_path / "run" / "iter_0000008").exists()


def test_abort_stops_at_the_first(train, tmp_path: Path) -> None:
    for rank in train("run", {5: 1}, rank=0, on_nan="abort"):
        assert rank["fault"][0] == "iteration 5: the loss is NaN or infinite" and rank["iteration"] == 6
    assert cases.dump(tmp_path / "run", 5)["iteration"] == 5


@pytest.mark.parametrize(
    "values",
    [
        {"overlap_grad_reduce": True, "overlap_param_gather": True, "bf16": True},
        pytest.param(PP2 | {"use_distributed_optimizer": False}, marks=pytest.mark.full),
        pytest.param({"fp16": True, "loss_scale": 16.0}, marks=pytest.mark.full),
    ],
)
def test_after_a_rollback_the_run_is_an_undisturbed_one(train, tmp_path: Path, values: dict[str, Any]) -> None:
    (_, last) = train("run", {5: 2, 7: 1}, rank=0, on_nan="rollback", **values)
    assert last["fault"] is None and last["iteration"] == 8
    assert sum("(rollback" in line for line in last["said"]) == 3
    history = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [(event["what"], event["iteration"]) for event in history] == [
        ("begin", 0), *[("rollback", 4)] * 3, ("end", 8),
    ]  # fmt: skip
    train("whole", {}, **values)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole") and len(losses(tmp_path / "run")) == 8
    assert cases.facts(tmp_path / "run", 8) == {"skipped_iterations": [], "skipped_in_all": {}}


@pytest.mark.full
def test_what_always_fails_is_rolled_back_three_times(train, tmp_path: Path) -> None:
    for rank in train("run", {5: 9}, on_nan="rollback"):
        assert rank["fault"][0] == "iteration 5: the loss is NaN or infinite, after 3 rollbacks"
        assert "--iterations-to-skip 5" in rank["fault"][1]
    assert sum("(rollback" in line for line in rank["said"]) == 3
    assert losses(tmp_path / "run")[4] is None and len(losses(tmp_path / "run")) == 6


@pytest.mark.full
def test_nothing_to_roll_back_to(train) -> None:
    for rank in train("run", {2: 1}, on_nan="rollback"):
        assert rank["fault"][0] == "iteration 2: the loss is NaN or infinite"
        assert rank["fault"][1].startswith("no checkpoint was saved yet")
