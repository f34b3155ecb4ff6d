"""A thread of each rank that watches: whether the run moves, whether the other ranks and the launcher live.

The loop does nothing for it but say where it is (`whereabouts.py`). About once a second the thread leaves a note for
the other ranks (`companions.py`). When a rank has been at one place for longer than `--hang-timeout-seconds`, or three
times its own longest stay of late, it is stuck, and writes its stacks. When all are, one rank reports which of them the
others wait for (`hang.py`); when they still are half as long again later, the run ends: a hung rank cannot be rescued,
and torchrun may start it anew.

Time counts only while the thread is awake: a job that was suspended as a whole is not stuck.
"""

from __future__ import annotations

import collections
import os
import signal
import sys
import threading
import time
import traceback
from types import FrameType, TracebackType
from typing import Any

from contextlm.config.schema import Config
from contextlm.parallel.companions import Companions, Failure, Note
from contextlm.training import exit_status, faults, hang
from contextlm.training.stacks import StacksFile, innermost_frames, is_in_a_collective
from contextlm.training.whereabouts import Whereabouts

_LOOKS_REMEMBERED = 1000
_TIMES_ITS_LONGEST = 3
_END = 1.5  # times the limit
_SILENCE = 60.0  # seconds without a note, where there is no limit to take half of
_SHARE_OF_GROUP_TIMEOUT = 0.9  # what may take long is told of before the process group gives up
SECONDS_TO_FOLLOW = 5.0  # in which a rank may notice by itself that another is gone


class Watchdog:
    """A context manager around the work of one rank.

    Args:
        config: the limits.
        companions: the other ranks' notes.
        where: what the main thread says of itself.
        output_dir: for `exit.json` and `stacks/`; None writes neither.
    """

    def __init__(self, config: Config, companions: Companions, where: Whereabouts, output_dir: str | None) -> None:
        self._companions, self._where, self._output_dir = companions, where, output_dir
        self.limit = config.parallel.hang_limit_seconds
        self._patience = _SHARE_OF_GROUP_TIMEOUT * 60 * config.parallel.distributed_timeout_minutes
        self._pause = min(1.0, self.limit / 8) if self.limit else 1.0
        self._silence = max(self.limit / 2, 3 * self._pause) if self.limit else _SILENCE
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._stays = collections.deque([0.0], maxlen=_LOOKS_REMEMBERED)
        self._seen, self._idle = where.now, 0.0
        self._has_written, self._has_reported, self._followed = False, False, 0.0
        self._stacks = StacksFile(None, companions.rank)
        self._handler_before: Any = None

    def __enter__(self) -> Watchdog:
        if self.limit:
            self._stacks = StacksFile(self._output_dir, self._companions.rank)
        if self._companions.world_size > 1:
            self._handler_before = signal.signal(signal.SIGTERM, self._terminated)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(timeout=2 * self._pause)  # unless it waits for a store that is gone
        self._stacks.close()
        try:
            if error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
                self._say_why(error)
        finally:
            self._companions.post(has_left=True)
            if self._companions.world_size > 1:
                signal.signal(signal.SIGTERM, self._handler_before)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """torchrun ends the survivors of a failure with SIGTERM: first they put on record whose it was."""
        if failure := self._anothers_failure():
            exit_status.write_cause(self._output_dir, failure.rank, failure.cause, failure.remedy)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _say_why(self, error: BaseException) -> None:
        """Tell the other ranks what failed here, or raise which other rank's failure it comes from."""
        if self._companions.world_size > 1 and faults.is_of_a_group(error):
            self._blame_another(error)
        fault = faults.explain(error)
        cause, remedy = (faults.first_line(error), "") if fault is None else (fault.what, fault.remedy)
        self._companions.report(Failure(self._companions.rank, cause, remedy))

    def _blame_another(self, error: BaseException) -> None:
        """Raise what the first rank that failed said of itself, or what is known of one that could say nothing."""
        end = time.monotonic() + SECONDS_TO_FOLLOW
        while (failure := self._anothers_failure()) is None and time.monotonic() < end:
            time.sleep(0.1)
        if failure is None and faults.is_timeout(error):
            self._companions.post(place=str(self._seen), iteration=self._seen.iteration, waits=True)
            found = hang.hanging(self._companions.notes(), self._silence)
            failure = self._companions.report(hang.as_failure(found))
        if failure is None:
            return
        exit_status.write_cause(self._output_dir, failure.rank, failure.cause, failure.remedy)
        raise self._following(failure) from error

    def _following(self, failure: Failure) -> faults.Fault:
        """This rank's own last words, when another one's failure ends it."""
        rank, whose = self._companions.rank, f"rank {failure.rank} "
        said_already = failure.rank == rank or failure.cause.startswith(whose)
        why = failure.cause if said_already else f"{whose}failed: {failure.cause}"
        return faults.Fault(f"rank {rank} ends, because {why}", failure.remedy or "see the last lines of that rank")

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self._pause):
            now = time.monotonic()
            try:
                self.look(now - before)
            except Exception:
                traceback.print_exc()
                print("warning: the watchdog has stopped; the run goes on", file=sys.stderr)
                return
            before = now

    def look(self, seconds: float) -> None:
        """Look once, so many seconds after the last time; where the thread was kept from looking, few of them count."""
        seconds = min(seconds, 2 * self._pause)
        if self._launcher is not None and os.getppid() != self._launcher:
            self._leave(_orphaned(self._companions.rank, self._launcher))  # and with it the companions' store
        limit = self._settle(seconds)
        is_stuck = self.limit > 0 and self._idle > limit
        if self.limit:
            self._stacks.write_unless_asked_again(self.limit)
        self._post(is_stuck)
        if self._where.leaves_by is not None and time.monotonic() > self._where.leaves_by:
            self._leave(self._companions.report(_late(self._companions.rank, self._seen.phase)))
        if failure := self._anothers_failure():
            self._followed += seconds
            if is_stuck or self._followed > SECONDS_TO_FOLLOW:
                self._leave(failure)
        elif is_stuck:
            self._when_stuck(limit)

    def _post(self, is_stuck: bool) -> None:
        """Tell the other ranks where this one is."""
        facts = {"frames": innermost_frames(), "waits": is_in_a_collective()} if is_stuck else {}
        here = self._seen
        self._companions.post(place=str(here), iteration=here.iteration, idle=self._idle, is_stuck=is_stuck, **facts)

    def _settle(self, seconds: float) -> float:
        """Count how long the rank has been where it is; returns how long it may be."""
        here = self._where.now
        if here is self._seen:
            self._idle += seconds
        else:
            if self._may_end:
                self._stays.append(self._idle)
            if self._has_written:
                print(f"rank {self._companions.rank} moves again, after {self._idle:.0f} s: {here}", file=sys.stderr)
            self._seen, self._idle, self._has_written, self._has_reported = here, 0.0, False, False
        if not self._may_end:
            return self._patience
        return min(max(self.limit, _TIMES_ITS_LONGEST * max(self._stays)), max(self.limit, self._patience))

    @property
    def _may_end(self) -> bool:
        """Whether the rank is where nothing takes long; the first iteration compiles, connects and measures."""
        first = self._where.first_iteration
        return self._seen.is_moving and first is not None and self._seen.iteration > first

    def _when_stuck(self, limit: float) -> None:
        """Write the stacks, once; report for all ranks, and end the run in the end, if this is the first that can."""
        if not self._has_written:
            self._has_written = True
            self._stacks.write(f"rank {self._companions.rank}: {self._seen}, idle for {self._idle:.0f} s")
        if self._companions.are_out_of_reach:
            return
        for rank in range(self._companions.rank):
            note = self._companions.note(rank)
            if note is not None and not note.has_left and not hang.is_silent(note, self._silence):
                return
        notes = self._companions.notes()
        if not hang.nothing_moves(notes, self._silence):
            return
        found, end = hang.hanging(notes, self._silence), _END * limit if self._may_end else None
        if end is not None and self._idle > end:
            self._leave(self._companions.report(hang.as_failure(found)))
        elif not self._has_reported:
            self._has_reported = True
            folder = None if self._stacks.path is None else str(self._stacks.path.parent)
            for line in hang.report(found, notes, self._silence, folder, None if end is None else end - self._idle):
                print(line, file=sys.stderr, flush=True)

    def _anothers_failure(self) -> Failure | None:
        """Why the run cannot go on, if a rank has failed or a neighbour has died."""
        if (failure := self._companions.first_failure()) is not None:
            return failure
        dead = self._companions.dead_neighbour()
        return None if dead is None else self._companions.report(_killed(dead))

    def _leave(self, failure: Failure) -> None:
        """End this process, whatever its main thread does, with the first failure as the cause."""
        if self._over.is_set():
            return
        exit_status.write_cause(self._output_dir, failure.rank, failure.cause, failure.remedy)
        fault = self._following(failure)
        faults.tell(fault)
        try:
            raise fault  # torchrun wants a traceback
        except faults.Fault:
            faults.tell_torchrun(fault)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _killed(dead: Note) -> Failure:
    return Failure(
        dead.rank,
        f"{dead} was killed, or crashed, without a word; last heard of in {dead.place}",
        "look for a signal in torchrun's last lines, and for processes that the kernel killed to free host memory "
        "(dmesg); run the same command again: it continues from the last checkpoint",
    )


def _orphaned(rank: int, launcher: int) -> Failure:
    return Failure(
        rank,
        f"the launcher of rank {rank} (torchrun, pid {launcher}) is gone",
        "run the same command again: it continues from the last checkpoint",
    )


def _late(rank: int, phase: str) -> Failure:
    return Failure(
        rank,
        f"rank {rank} did not save in time after a signal, and is still in: {phase}",
        "the checkpoint before is in force; --signal-save-timeout-seconds gives it longer, if the scheduler does",
    )
