"""Notes of ranks: the first failure stays, a dead process is found, a store that is gone harms nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest import mock

import psutil
import pytest
from torch.distributed import HashStore

from contextlm.parallel.companions import Companions, Failure, companions


@pytest.fixture
def pair(monkeypatch):
    """Ranks 4 and 5, the first two of their host; the second is a process of its own."""
    store, process = HashStore(), subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    found = []
    for local_rank, pid in enumerate((os.getpid(), process.pid)):
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        with mock.patch.object(os, "getpid", lambda pid=pid: pid):
            found.append(Companions(4 + local_rank, 6, store))
    yield found, process
    process.kill()
    process.wait()


def test_a_dead_neighbour_is_found(pair) -> None:
    (four, five), process = pair
    assert four.dead_neighbour() is None
    five.post(place="saving", iteration=3)
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        pass  # torchrun has not looked yet
    dead = four.dead_neighbour()
    assert (dead.rank, dead.pid, dead.place) == (5, process.pid, "saving")
    process.wait()
    assert four.dead_neighbour() == dead


def test_one_that_left_is_no_victim(pair) -> None:
    (four, five), process = pair
    five.post(has_left=True)
    process.kill()
    process.wait()
    assert four.dead_neighbour() is None


def test_one_that_died_before_it_was_met_is_found(pair) -> None:
    (four, _), process = pair
    process.kill()
    process.wait()
    assert four.dead_neighbour().rank == 5


def test_notes_and_the_first_failure(pair) -> None:
    (four, five), _ = pair
    five.post(place="update", iteration=7, frames=("a:1 f",), is_stuck=True, idle=2.5)
    note = four.note(5)
    assert (note.place, note.iteration, note.frames, note.is_stuck, note.idle) == ("update", 7, ("a:1 f",), True, 2.5)
    assert four.note(3) is None and set(four.notes()) == set(range(6))
    assert four.first_failure() is None
    first = Failure(5, "no memory", "try less")
    assert five.report(first) == first
    assert four.report(Failure(4, "lost contact")) == first == four.first_failure()


def test_a_store_that_fails_once_is_not_asked_again() -> None:
    store = mock.Mock(set=mock.Mock(side_effect=RuntimeError("Broken pipe")))
    alone = Companions(0, 2, store)
    assert alone.are_out_of_reach and alone.note(1) is None and alone.first_failure() is None
    assert alone.report(Failure(0, "a")) == Failure(0, "a") and store.set.call_count == 1


def test_a_run_of_one_needs_no_address() -> None:
    assert companions(0, 1, "once").note(0).pid == os.getpid()
