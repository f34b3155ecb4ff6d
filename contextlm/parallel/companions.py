"""What the ranks of a run know of each other without a collective: where each one is, which of them failed first.

They leave notes in the store that brought them together, torchrun's, over a connection of their own: a rank that hangs
in a collective, or in the store, keeps nobody from reading. Whether a process of the same host still lives the system
says; of another host only its own notes do, by their age.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from torch.distributed import HashStore, PrefixStore, Store, TCPStore

_STORE_TIMEOUT = datetime.timedelta(seconds=30)


@dataclass(frozen=True)
class Note:
    """What one rank says of itself.

    Attributes:
        place: in words.
        iteration: which one it is in.
        idle: seconds since it last came to another place.
        is_stuck: whether that is longer than it should be.
        waits: whether a thread of it sits in a collective.
        frames: the innermost ones of its main thread, innermost first.
        has_left: whether it ended its work in order, or failed and said why.
        at: when it said so, seconds since the epoch.
    """

    rank: int
    pid: int
    host: str
    place: str = "start"
    iteration: int = 0
    idle: float = 0.0
    is_stuck: bool = False
    waits: bool = False
    frames: tuple[str, ...] = ()
    has_left: bool = False
    at: float = field(default_factory=lambda: time.time())

    def __str__(self) -> str:
        return f"rank {self.rank} (pid {self.pid} on {self.host})"


@dataclass(frozen=True)
class Failure:
    """The first failure of a run: of which rank, what happened, what to try (may be empty)."""

    rank: int
    cause: str
    remedy: str = ""


class Companions:
    """The notes of all ranks.

    Args:
        rank: this one.
        world_size: how many there are.
        store: for them alone.

    Attributes:
        are_out_of_reach: whether the store has failed.
    """

    def __init__(self, rank: int, world_size: int, store: Store) -> None:
        self.rank, self.world_size, self._store = rank, world_size, store
        self.are_out_of_reach = False
        self.pid, self.host, self._machine = os.getpid(), socket.gethostname(), _machine()
        self._local_rank, self._local_size = (
            int(os.environ.get(name, default)) for name, default in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
        )
        self._neighbours: dict[int, tuple[int, psutil.Process | None]] = {}  # by local rank; None: it died unmet
        self.post()
        self._set(f"process/{self._machine}/{self._local_rank}", {"rank": rank, "pid": self.pid})

    def post(self, **facts: object) -> None:
        """Leave this rank's note, in place of the one before."""
        self._set(f"rank/{self.rank}", asdict(Note(self.rank, self.pid, self.host, **facts)))  # type: ignore[arg-type]

    def note(self, rank: int) -> Note | None:
        """The last note of a rank; None if it has left none."""
        found = self._get(f"rank/{rank}")
        return None if found is None else Note(**(found | {"frames": tuple(found["frames"])}))

    def notes(self) -> dict[int, Note | None]:
        """The last note of every rank."""
        return {rank: self.note(rank) for rank in range(self.world_size)}

    def report(self, failure: Failure) -> Failure:
        """Tell all ranks what failed; the first failure stays, and is returned."""
        text = json.dumps(asdict(failure))
        kept = self._reach(lambda store: json.loads(store.compare_set("failure", "", text)))
        return failure if kept is None else Failure(**kept)

    def first_failure(self) -> Failure | None:
        """What any rank, or another one for it, has reported."""
        found = self._get("failure")
        return None if found is None else Failure(**found)

    def dead_neighbour(self) -> Note | None:
        """A rank of this host whose process is gone, although it has not left."""
        for local_rank in set(range(self._local_size)) - {self._local_rank} - set(self._neighbours):
            self._meet(local_rank)
        for rank, process in self._neighbours.values():
            if not _lives(process) and (note := self.note(rank)) is not None and not note.has_left:
                return note
        return None

    def _meet(self, local_rank: int) -> None:
        """Remember the process of a rank of this host, once that has said which it is."""
        if (found := self._get(f"process/{self._machine}/{local_rank}")) is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):  # it died before we met
            self._neighbours[local_rank] = (found["rank"], psutil.Process(found["pid"]))
            return
        self._neighbours[local_rank] = (found["rank"], None)

    def _set(self, key: str, value: dict[str, object]) -> None:
        self._reach(lambda store: store.set(key, json.dumps(value)))

    def _get(self, key: str) -> dict | None:
        return self._reach(lambda store: json.loads(store.get(key)) if store.check([key]) else None)

    def _reach(self, ask: Callable[[Store], Any]) -> Any:
        """The store's answer; None if it has failed once, with its host or with torchrun: it is not asked again."""
        if not self.are_out_of_reach:
            try:
                return ask(self._store)
            except RuntimeError:
                self.are_out_of_reach = True
        return None


def companions(rank: int, world_size: int, attempt: str) -> Companions:
    """Those of one attempt, at the address that torchrun gives."""
    if world_size == 1:
        return Companions(rank, world_size, HashStore())
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=_STORE_TIMEOUT, wait_for_workers=False)
    return Companions(rank, world_size, PrefixStore(f"{attempt}/companions", store))


def _machine() -> str:
    """Equal for processes that can see each other's ids: of one host, and of one container there."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _lives(process: psutil.Process | None) -> bool:
    """Whether a process, and no later one with its number, does anything still."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
