"""Faults that megatron-core's optimizers meet in silence: each is found, or does not happen; and would without us.

Elsewhere: several buckets (test_optimizer_share.py), the step tensor (unit/megatron/test_adamw.py), the three forms
of the optimizer's state (test_resume_matrix.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.distributed import silent_fault_cases as cases
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import OPTIMIZERS
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train, weights_and_moments

GATHER = OPTIMIZERS["distributed, overlap and gather"]
PP2 = LAYOUTS["PP2"][1]


@pytest.mark.parametrize("gathered", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_were_not_gathered_are_not_saved(
    pool: Pool, tmp_path: Path, gathered: bool, precision: str
) -> None:
    values = GATHER | ({"bf16": True} if precision == "bf16" else {})
    (memory, _), _ = pool.run(cases.save_after_steps, 2, folder=str(tmp_path), values=values, gathered=gathered)
    (stored,) = pool.run(weights_and_moments, 1, folder=str(tmp_path), values={})
    names = [name for name in memory if name in stored["tensors"]]  # norms have other names there
    assert len(names) > 10
    stale = [name for name in names if not np.array_equal(stored["tensors"][name], memory[name])]
    assert bool(stale) == (not gathered), stale


def test_a_resume_begins_with_the_weights_after_the_last_update(pool: Pool, tmp_path: Path) -> None:
    """In bf16 the masters are right either way: only the first forward pass sees stale weights."""
    values = GATHER | {"bf16": True}
    right, stale = str(tmp_path / "right"), str(tmp_path / "stale")
    (_, then), _ = pool.run(cases.save_after_steps, 2, folder=right, values=values, gathered=True, then=2)
    pool.run(cases.save_after_steps, 2, folder=stale, values=values, gathered=False)
    values = cases.BATCH | values
    assert pool.run(train, 2, folder=None, steps=2, values=values | {"load": right}) == [then, then]
    assert pool.run(train, 2, folder=None, steps=1, values=values | {"load": stale})[0] != then[:1]
    assert pool.run(cases.resume_stale, 2, folder=right, steps=1, values=values)[0] != then[:1]


def test_groups_that_would_be_confused_are_refused(pool: Pool) -> None:
    (message,) = pool.run(cases.alike_groups, 1)
    assert "two are alike" in message


@pytest.mark.parametrize("confused", [True, pytest.param(False, marks=pytest.mark.full)])
def test_confused_groups_would_resume_as_others(pool: Pool, tmp_path: Path, confused: bool) -> None:
    """In silence with the distributed optimizer alone: torch, under the plain one, would see their sizes."""
    function, folder = cases.train_confused if confused else train, str(tmp_path)
    values = cases.BATCH | {"weight_decay": 0.1, "train_iters": 3}
    (whole,) = pool.run(function, 1, folder=None, steps=3, values=values)
    assert pool.run(function, 1, folder=folder, steps=1, values=values) == [whole[:1]]
    assert (pool.run(function, 1, folder=folder, steps=2, values=values) == [whole[1:]]) == (not confused)


def test_two_types_of_weights_are_refused(pool: Pool) -> None:
    (message,) = pool.run(cases.two_types, 1)
    assert "torch.bfloat16" in message and "torch.float32" in message


@pytest.mark.parametrize("optimizer", ["distributed", "plain"])
def test_a_run_is_saved_before_its_first_iteration(pool: Pool, tmp_path: Path, optimizer: str) -> None:
    values, folder = OPTIMIZERS[optimizer], str(tmp_path / "begun")
    arguments = {"values": cases.BATCH | values | {"train_iters": 3}}
    (keys,) = pool.run(cases.save_before_the_first_step, 1, folder=folder, values=values, initialised=True)
    assert "optimizer.state.exp_avg.context_head.gate" in keys
    whole = pool.run(train, 1, folder=None, steps=3, **arguments)
    assert pool.run(train, 1, folder=folder, steps=3, **arguments) == whole


def test_without_the_remedy_an_unbegun_state_is_not_saved(pool: Pool, tmp_path: Path) -> None:
    for optimizer in ("plain", "distributed"):
        values, folder = OPTIMIZERS[optimizer], str(tmp_path / optimizer)
        assert pool.run(cases.save_before_the_first_step, 1, folder=folder, values=values, initialised=False) == [[]]


def test_what_one_rank_lacks_every_rank_tells(pool: Pool, tmp_path: Path) -> None:
    folder = str(tmp_path)
    pool.run(train, 2, folder=folder, steps=1, values=cases.BATCH | PP2)
    messages = pool.run(cases.load_what_one_rank_lacks, 2, folder=folder, values=PP2)
    assert len(set(messages)) == 1 and "decoder.nowhere: the model has it, the checkpoint does not" in messages[0]


def test_a_damaged_file_is_an_ordinary_error_on_every_rank(pool: Pool, tmp_path: Path) -> None:
    folder = str(tmp_path)
    pool.run(train, 2, folder=folder, steps=1, values=cases.BATCH | PP2)
    (largest, *_) = sorted(tmp_path.rglob("*.distcp"), key=lambda path: -path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    for message in pool.run(cases.load_damaged, 2, folder=folder, values=PP2 | {"verify_integrity": False}):
        assert message.startswith("UserError: checkpoint") and "cannot be read" in message


def test_what_one_rank_cannot_write_every_rank_tells(pool: Pool, tmp_path: Path) -> None:
    folder, arguments = str(tmp_path), {"values": cases.BATCH | PP2 | {"train_iters": 3}}
    whole = pool.run(train, 2, folder=None, steps=3, **arguments)[-1]
    first = pool.run(train, 2, folder=folder, steps=1, **arguments)[-1]
    for message in pool.run(cases.save_where_one_disk_is_full, 2, folder=folder, values=PP2):
        assert (
            message.startswith("Fault: the last checkpoint, of iteration 2,")
            and "rank 1: " in message
            and "No space left" in message
        )
    assert first + pool.run(train, 2, folder=folder, steps=2, **arguments)[-1] == whole
