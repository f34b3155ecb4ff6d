"""Which checkpoints stay, and that nothing else is touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pytest

from contextlm.checkpoints import checkpoint_folder, retention
from contextlm.checkpoints.retention import BEST, Retention
from contextlm.config.schema import CheckpointConfig


def given(root: Path, **values: object) -> CheckpointConfig:
    return CheckpointConfig(save=str(root), **values)


def checkpoint(root: Path, iteration: int) -> Path:
    folder = checkpoint_folder.iteration_folder(root, iteration)
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    return folder


def kept(root: Path) -> list[int]:
    return sorted(int(folder.name[5:]) for folder in root.glob("iter_*") if folder.name[5:].isdigit())


def run(root: Path, values: dict[str, object], losses: dict[int, float], iterations: range) -> list[list[int]]:
    """Save and evaluate at each of the iterations; what is there after each."""
    keeping, found = Retention(given(root, **values), 0), []
    for iteration in iterations:
        checkpoint(root, iteration)
        keeping.published(iteration)
        if iteration in losses:
            keeping.evaluated(iteration, losses[iteration])
        found.append(kept(root))
    return found


LOSSES = {10: float("nan"), 20: 2.0, 30: 2.5, 40: 2.1, 50: 2.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [10, 20, 30, 40, 50]),
        ({"save_total_limit": 2}, [40, 50]),
        ({"save_retain_interval": 20}, [20, 40, 50]),  # Megatron-LM's meaning: of the others only the last
        ({"save_retain_interval": 20, "save_total_limit": 3}, [20, 30, 40, 50]),
        ({"save_best": True, "save_total_limit": 1}, [20, 50]),
        ({"save_best": True}, [10, 20, 30, 40, 50]),
    ],
)
def test_what_stays(tmp_path: Path, values: dict[str, object], expected: list[int]) -> None:
    steps = run(tmp_path, values, LOSSES, range(10, 60, 10))
    assert steps[-1] == expected
    assert all(step[-1] == iteration for step, iteration in zip(steps, range(10, 60, 10), strict=True))
    assert (tmp_path / BEST).exists() == values.get("save_best", False)
    if values.get("save_best"):
        assert (tmp_path / BEST).read_text() == "20\n2.0\n"


def test_the_best_is_known_again_after_a_resume(tmp_path: Path) -> None:
    values = {"save_best": True, "save_total_limit": 1}
    run(tmp_path, values, LOSSES, range(10, 60, 10))
    keeping = Retention(given(tmp_path, **values), 50)
    keeping.evaluated(60, 2.2)  # before it is published, as in the background
    checkpoint(tmp_path, 60)
    keeping.published(60)
    assert kept(tmp_path) == [20, 60]
    keeping.evaluated(70, 1.0)
    assert (tmp_path / BEST).read_text() == "20\n2.0\n"  # not saved yet
    checkpoint(tmp_path, 70)
    keeping.published(70)
    assert kept(tmp_path) == [70] and (tmp_path / BEST).read_text() == "70\n1.0\n"


def test_a_best_of_another_past_is_none(tmp_path: Path) -> None:
    """The run was taken back to iteration 30: what came after it never was, and is not deleted."""
    values = {"save_best": True, "save_total_limit": 1}
    for iteration in (30, 50):
        checkpoint(tmp_path, iteration)
    (tmp_path / BEST).write_text("50\n1.0\n")
    keeping = Retention(given(tmp_path, **values), 30)
    checkpoint(tmp_path, 40)
    keeping.published(40)
    keeping.evaluated(40, 2.0)
    assert kept(tmp_path) == [40, 50] and (tmp_path / BEST).read_text() == "40\n2.0\n"


def test_nothing_else_is_deleted(tmp_path: Path) -> None:
    others = ["iter_12", "iter_0000010.bak", "my_iter_0000010", "iter_0000020"]
    for name in others:  # the last has no run.json: it is not one of ours
        (tmp_path / name).mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "iter_0000030").symlink_to(checkpoint(elsewhere, 30))
    run(tmp_path, {"save_total_limit": 1}, {}, range(40, 60, 10))
    assert {path.name for path in tmp_path.iterdir()} == {*others, "elsewhere", "iter_0000030", "iter_0000050"}
    assert (elsewhere / "iter_0000030" / "run.json").exists()


def test_a_kill_while_deleting_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    run(tmp_path, {}, {}, range(10, 30, 10))
    with mock.patch.object(retention.shutil, "rmtree", side_effect=[None, InterruptedError]), pytest.raises(OSError):
        Retention(given(tmp_path, save_total_limit=1), 20).published(20)
    assert {folder.name for folder in tmp_path.iterdir()} == {"iter_0000010.tmp", "iter_0000020"}
    assert checkpoint_folder.candidates(tmp_path).folders == [tmp_path / "iter_0000020"]
    checkpoint_folder.begin(tmp_path / "iter_0000030.tmp")
    assert {folder.name for folder in tmp_path.iterdir()} == {"iter_0000020", "iter_0000030.tmp"}


def test_room_is_made_of_what_would_go_anyway(tmp_path: Path) -> None:
    run(tmp_path, {}, {}, range(10, 60, 10))
    sizes = lambda _: mock.Mock(free=100 + 50 * (5 - len(kept(tmp_path))))  # noqa: E731
    with mock.patch.object(shutil, "disk_usage", sizes):
        Retention(given(tmp_path), 50).make_room(60, 100)
        with pytest.raises(OSError, match="101 bytes are needed, 100 bytes are free"):
            Retention(given(tmp_path), 50).make_room(60, 101)
        assert kept(tmp_path) == [10, 20, 30, 40, 50]
        Retention(given(tmp_path, save_total_limit=3), 50).make_room(60, 200)
        assert kept(tmp_path) == [30, 40, 50]  # no more than is needed, the oldest first
        with pytest.raises(OSError, match="1.0 GB are needed"):
            Retention(given(tmp_path, save_total_limit=1), 50).make_room(60, 10**9)
        assert kept(tmp_path) == [50]  # never the newest
