"""A name that the ranks of one attempt share, and no attempt before: what it prefixes in the store is theirs alone.

torchrun keeps its store when it restarts ranks (torch 2.13, `dynamic_rendezvous.py`, line 1217, and the static one),
and `init_process_group` puts nothing between attempts: a rank may read where its peer listened before it was killed,
and never reach it. The number of restarts is no name: agents of several nodes count their own (pytorch issue 135712).

So rank 0 makes one up, and answers each rank that says hello with a word of its own, as often as it hears a new word:
old ones get an answer that nobody reads.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch.distributed import DistStoreError, Store

_SECONDS_BETWEEN_LOOKS = 0.005


def agree_on_name(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """The name; every rank must call this once in an attempt.

    Raises:
        DistStoreError: not all ranks have come in time.
    """
    word = uuid.uuid4().hex
    if rank == 0:
        _answer(store, word, set(range(1, world_size)), timeout)
        return word
    store.set(f"hello/{rank}", word)
    store.wait([f"answer/{word}"], timeout)
    name = store.get(f"answer/{word}").decode()
    store.set(f"met/{name}/{rank}", "")
    return name


def _answer(store: Store, name: str, missing: set[int], timeout: timedelta) -> None:
    """Tell the name to all ranks, until each has said that it knows."""
    end, answered = time.monotonic() + timeout.total_seconds(), set()
    while missing:
        for rank in sorted(missing):
            if store.check([f"met/{name}/{rank}"]):
                missing.discard(rank)
            elif store.check([f"hello/{rank}"]) and (word := store.get(f"hello/{rank}").decode()) not in answered:
                store.set(f"answer/{word}", name)
                answered.add(word)
        if missing and time.monotonic() > end:
            raise DistStoreError(f"timed out: no sign of rank(s) {sorted(missing)[:8]}")
        time.sleep(_SECONDS_BETWEEN_LOOKS if missing else 0)
