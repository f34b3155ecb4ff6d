"""A checkpoint is what the run was at its iteration, whatever happens while it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import saving_cases as cases
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import OPTIMIZERS
from tests.distributed.pool import Pool
from tests.distributed.stop_cases import losses

PLAIN = {"use_distributed_optimizer": False}


def digests(folder: Path) -> dict[str, Any]:
    """Of what the ranks wrote: tensors and plain values, but not the index, which has a time in it."""
    (manifest,) = folder.rglob("manifest.json")
    files = json.loads(manifest.read_text())["files"]
    return {name: files[name]["sha256"] for name in files if name.endswith((".distcp", "common.pt"))}


def tracker(folder: Path) -> str:
    return (folder / "latest_checkpointed_iteration.txt").read_text().strip()


@pytest.mark.parametrize(
    ("layout", "optimizer", "precision"),
    [
        ("one", "plain", "fp16"),
        ("DP2", "distributed, overlap and gather", "bf16"),
        pytest.param("one", "distributed", "fp32", marks=pytest.mark.full),
        pytest.param("DP2", "plain, overlap", "bf16", marks=pytest.mark.full),
        pytest.param("TP2 SP x PP2 interleaved", "distributed", "fp16", marks=pytest.mark.full),
        pytest.param("PP2 x DP2", "distributed, overlap and gather", "fp32", marks=pytest.mark.full),
    ],
)
def test_what_is_written_later_is_what_was_saved(pool: Pool, tmp_path: Path, layout, optimizer, precision) -> None:
    """Bit for bit, though training has changed weights, moments, loss scale and generators three times meanwhile."""
    world, sizes = LAYOUTS[layout]
    values = sizes | OPTIMIZERS[optimizer] | ({} if precision == "fp32" else {precision: True})
    here, there = tmp_path / "here", tmp_path / "there"
    assert all(pool.run(cases.save_and_train_on, world, here=str(here), there=str(there), values=values))
    assert len(digests(here)) == 2 * world + 1 and digests(here) == digests(there)
    facts = [json.loads((folder / "iter_0000001" / "run.json").read_text()) for folder in (here, there)]
    assert facts[0] == facts[1] and facts[0]["consumed_samples"] == 4
    assert cases.damage(there / "iter_0000001") == []


def test_without_the_copy_it_would_not_be(pool: Pool, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    pool.run(
        cases.save_and_train_on, 1, here=str(here), there=str(there), values=PLAIN | {"fp16": True}, forget_to_copy=True
    )
    one, other = digests(here), digests(there)
    assert all(one[name] != other[name] for name in ("__0_0.distcp", "__0_1.distcp"))


PHASES = {
    "before the folder": 2,
    "before __0_0.distcp": 2,
    "after __0_0.distcp": 2,
    "before __0_1.distcp": 2,
    "after __0_1.distcp": 2,
    "before the index": 2,
    "before metadata.json": 2,
    "after .metadata.co": 2,
    "before the manifest": 2,
    "before it is published": 2,
    "before there is iter_0000003": 2,
    "before the tracker": 2,
    "before the tracker's name": 2,
    "before the oldest goes": 3,
    "before there is iter_0000001.tmp": 3,
    "before iter_0000001.tmp is removed": 3,
}


def test_a_kill_in_any_phase_leaves_a_complete_checkpoint_in_force(pool: Pool, tmp_path: Path) -> None:
    folder, copies = tmp_path / "run", tmp_path / "copies"
    (taken,) = pool.run(cases.copies_of_each_phase, 1, folder=str(folder), copies=str(copies))
    assert set(PHASES) <= set(taken), set(PHASES) - set(taken)
    for moment in taken:
        left = copies / moment
        in_force = left / f"iter_{int(tracker(left)):07d}"
        assert cases.damage(in_force) == [] and tracker(left) == str(PHASES.get(moment, tracker(left))), moment
        others = {path.name for path in left.iterdir() if path.is_dir()}
        assert others >= {"iter_0000002"}, moment
        for name in cases.folder_after_next_begin(left):  # the next save removes what was left
            assert name.startswith("iter_") and cases.damage(left / name) == [], (moment, name)
    assert sorted(path.name for path in folder.glob("iter_*")) == ["iter_0000002", "iter_0000003"]


def test_a_fault_in_training_leaves_a_save_that_does_not_count(pool: Pool, tmp_path: Path) -> None:
    (found,) = pool.run(cases.leave_while_saving, 1, folder=str(tmp_path))
    assert found["left"] == ["iter_0000001.tmp"] and found["threads"] == 0
    assert set(found["files"]) <= {"__0_0.distcp", "__0_1.distcp"}
    assert found["then"] == ["iter_0000002", "latest_checkpointed_iteration.txt"]


def test_a_rank_that_goes_in_a_save_ends_the_others_and_leaves_no_process(pool: Pool, tmp_path: Path) -> None:
    stays, goes = pool.run(cases.die_while_saving, 2, folder=str(tmp_path))
    assert stays["what"].startswith("rank 0 lost contact with another rank: ")
    assert stays["children"] == goes["children"] == []
    assert {path.name for path in tmp_path.glob("iter_*")} == {"iter_0000001", "iter_0000002.tmp"}
    assert tracker(tmp_path) == "1" and cases.damage(tmp_path / "iter_0000001") == []
    # It is ignored, and the next save removes it.
    pool.run(cases.train_with_faults, 2, folder=str(tmp_path), values={"train_iters": 2}, fail_at={})
    assert {path.name for path in tmp_path.glob("iter_*")} == {"iter_0000001", "iter_0000002"}


FULL = "rank {}: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("what", "in_background", "cause"),
    [
        ("disk", True, "rank 1: [Errno 27] File too large"),
        pytest.param("write", True, FULL.format(1), marks=pytest.mark.full),
        ("publish", False, FULL.format(0)),
        pytest.param("write", False, FULL.format(1), marks=pytest.mark.full),
        pytest.param("publish", True, FULL.format(0), marks=pytest.mark.full),
        pytest.param("begin", True, FULL.format(0), marks=pytest.mark.full),
        pytest.param("begin", False, FULL.format(0), marks=pytest.mark.full),
        ("room", True, "rank 0: SIZE are needed, SIZE are free"),
    ],
)
def test_training_survives_a_save_that_fails(pool: Pool, tmp_path: Path, what, in_background, cause) -> None:
    """The save of iteration 4 fails, so does that of the log line after it, and twice the last one."""
    values = {"train_iters": 9, "save_interval": 4, "log_interval": 3, "async_save": in_background}
    ranks = pool.run(
        cases.train_with_faults, 2, folder=str(tmp_path), values=values, fail_at={4: 1, 6: 1, 9: 2}, what=what
    )
    for rank in ranks:
        assert rank["fault"] is None and rank["failed"] == 4
        warnings = [_without_sizes(text) for text in rank["said"] if text.startswith("warning")]
        again = "; the next log line tries again"
        assert warnings == [
            f"warning: checkpoint of iteration {n} could not be written: {cause}{plan}"
            for n, plan in ((4, again), (6, again), (9, ""), (9, ""))
        ]
        assert [text[-12:] for text in rank["said"] if text.startswith("saved")] == ["iter_0000008", "iter_0000009"]
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == ["iter_0000008", "iter_0000009"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "failed_saves" not in lines[0] and lines[-1]["failed_saves"] == 2
    assert json.loads((tmp_path / "iter_0000009" / "run.json").read_text())["failed_saves"] == 4
    history = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["what"], event["iteration"], _without_sizes(event.get("cause") or "")) for event in history] == [
        ("begin", 0, ""), *(("failed save", n, cause) for n in (4, 6, 9, 9)), ("end", 9, ""),
    ]  # fmt: skip


def _without_sizes(text: str) -> str:
    return re.sub(r"[\d.,]+ \w+ are", "SIZE are", text)


def test_a_last_save_that_fails_again_and_again_fails_the_run(pool: Pool, tmp_path: Path) -> None:
    values = {"train_iters": 5, "save_interval": 3, "pipeline_model_parallel_size": 2, "async_save": True}
    ranks = pool.run(cases.train_with_faults, 2, folder=str(tmp_path), values=values, fail_at={5: 3})
    for rank in ranks:
        what, remedy = rank["fault"]
        assert what == f"the last checkpoint, of iteration 5, could not be written: {FULL.format(1)}"
        assert f"what follows {tmp_path / 'iter_0000003'} is lost" in remedy and "the same command" in remedy
    assert tracker(tmp_path) == "3" and not list(tmp_path.glob("iter_0000005*"))
    assert cases.damage(tmp_path / "iter_0000003") == []
    # The same command, when there is room, ends as if nothing had happened.
    pool.run(cases.train_with_faults, 2, folder=str(tmp_path), values=values, fail_at={})
    whole = tmp_path / "whole"
    pool.run(cases.train_with_faults, 2, folder=str(whole), values=values, fail_at={})
    assert losses(tmp_path) == losses(whole) and digests_of_last(tmp_path) == digests_of_last(whole)


def digests_of_last(folder: Path) -> dict[str, Any]:
    files = json.loads((folder / "iter_0000005" / "manifest.json").read_text())["files"]
    return {name: files[name]["sha256"] for name in files if name.endswith(".distcp")}


@pytest.mark.parametrize("interval", [2, pytest.param(1, marks=pytest.mark.full)])
def test_a_slow_rank_delays_the_checkpoint_and_not_the_training(pool: Pool, tmp_path: Path, interval: int) -> None:
    """The last rank writes when the loop has gone on; with an interval of 1 the next save waits, and finds it done."""
    values = {"train_iters": 7, "save_interval": interval * 2, "async_save": True, "log_interval": 1}
    ranks = pool.run(cases.train_with_faults, 2, folder=str(tmp_path), values=values, fail_at={}, held=True)
    expected = [*range(interval * 2, 7, interval * 2), 7]
    for rank in ranks:
        assert [int(text[-7:]) for text in rank["said"] if text.startswith("saved")] == expected
    assert [cases.damage(folder) for folder in sorted(tmp_path.glob("iter_*"))] == [[]] * len(expected)


def test_a_signal_has_the_save_under_way_published_before_the_last_one(pool: Pool, tmp_path: Path) -> None:
    values = {"train_iters": 9, "save_interval": 2, "async_save": True, "save_total_limit": 1}
    ranks = pool.run(cases.stop_while_saving, 2, folder=str(tmp_path), values=values)
    for rank in ranks:
        assert rank["stopped_by"] == "SIGUSR1" and rank["saved"] == [2, 3]
    assert tracker(tmp_path) == "3" and [path.name for path in tmp_path.glob("iter_*")] == ["iter_0000003"]


def test_the_loop_keeps_the_newest_and_the_best(pool: Pool, tmp_path: Path) -> None:
    values = {"train_iters": 8, "save_interval": 2, "eval_interval": 1, "eval_iters": 1, "save_total_limit": 1}
    losses = {1: 1.0, 2: 5.0, 3: 4.0, 4: 3.5, 5: 2.0, 6: 4.5, 7: 1.5, 8: 3.6}
    more = {"async_save": True, "save_best": True}
    pool.run(cases.train_with_faults, 1, folder=str(tmp_path), values=values | more, fail_at={}, losses=losses)
    assert (tmp_path / "best_checkpointed_iteration.txt").read_text() == "4\n3.5\n"
    assert {path.name for path in tmp_path.glob("iter_*")} == {"iter_0000004", "iter_0000008"}
