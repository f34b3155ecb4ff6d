"""Ranks agree on a name that no earlier attempt had, whatever that left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import DistStoreError, HashStore

from contextlm.parallel.meeting import agree_on_name

SOON, NEVER = timedelta(seconds=60), timedelta(milliseconds=20)


def meet(store: HashStore, ranks: range) -> set[str]:
    with ThreadPoolExecutor(len(ranks)) as threads:
        return set(threads.map(lambda rank: agree_on_name(store, rank, len(ranks), SOON), ranks))


def test_every_attempt_has_a_name_of_its_own() -> None:
    store = HashStore()
    names = [meet(store, range(3)) for _ in range(3)]
    assert [len(name) for name in names] == [1, 1, 1] and len(set.union(*names)) == 3


def test_what_a_killed_attempt_left_does_no_harm() -> None:
    """Rank 1 said hello and died; rank 0 answered, and rank 2 never came."""
    store = HashStore()
    store.set("hello/1", "a word of a dead rank")
    with pytest.raises(DistStoreError, match=r"timed out: no sign of rank\(s\) \[1, 2\]"):
        agree_on_name(store, 0, 3, NEVER)
    assert len(meet(store, range(3))) == 1


def test_a_rank_alone_needs_nobody() -> None:
    assert agree_on_name(HashStore(), 0, 1, NEVER)
