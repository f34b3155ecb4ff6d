"""When a run saves, and what happens if it cannot.

A save that training waits for and one in the background (`--async-save`) are the same: `snapshot.py` takes what is to
be saved, `background_save.py` brings it to the disk, and waiting is all the difference. Which checkpoints stay:
`retention.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from contextlm.checkpoints import checkpoint_folder, save_lock
from contextlm.checkpoints.background_save import BackgroundSave
from contextlm.checkpoints.retention import Retention
from contextlm.checkpoints.shards import Piece
from contextlm.checkpoints.snapshot import Snapshot
from contextlm.config.yaml_file import write as write_config
from contextlm.errors import tell_warnings
from contextlm.parallel.agreement import Agreement, Problems
from contextlm.training import events
from contextlm.training.faults import Fault
from contextlm.training.setup import Run
from contextlm.training.whereabouts import SAVING

ROOM = 1.05  # bytes on the disk for each byte of a tensor
RETRIES = 3  # of a save that failed, at the log lines after it
PAUSES_BEFORE_RETRIES = (1.0, 4.0)  # seconds, of the last save
MOST_ITERATIONS_BETWEEN_QUESTIONS = 32


class Saving:
    """A context manager around the loop, which asks it after each iteration; all ranks ask the same.

    Args:
        run: the run, at the iteration with which the loop begins. Without `--save` nothing is saved.
        hosts: to agree on what befell some of them.
        say: prints for the user.
    """

    def __init__(self, run: Run, hosts: Agreement, say: Callable[..., None]) -> None:
        self._run, self._hosts, self._say = run, hosts, say
        given = run.config.checkpoint
        self._root = None if given.save is None else Path(given.save)
        self._is_first = run.runtime.rank == 0
        keeps = self._root is not None and self._is_first
        self._retention = Retention(given, run.progress.iteration) if keeps else None
        self._under_way: BackgroundSave | None = None
        self._failure: Problems | None = None  # of the newest save, unless that succeeded
        self._retries = 0  # that are left
        self._pause, self._left = 1, 1  # iterations between two questions, and until the next
        self._undeleted: list[str] = []

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *_: object) -> None:
        if self._under_way is not None:
            self._under_way.abandon()

    def due(self) -> bool:
        """Whether to save after this iteration: by `--save-interval`, or once more at a log line after a failure."""
        config, iteration = self._run.config, self._run.progress.iteration
        interval = config.checkpoint.save_interval
        if interval is not None and iteration % interval == 0:
            self._retries = RETRIES
            return True
        if self._failure is None or not self._retries or iteration % config.logging.log_interval:
            return False
        self._retries -= 1
        return True

    def save(self, *, last: bool) -> None:
        """Save the current iteration, after a save that is under way; collective.

        Args:
            last: of the run: it is waited for, and must not fail.

        Raises:
            Fault: on every rank, the last save failed again and again; the checkpoints before are as they were.
        """
        if self._root is None:
            return
        self._run.where.at(SAVING, self._run.progress.iteration)
        self._wait()
        if not last:
            self._begin()
            if not self._run.config.checkpoint.async_save:
                self._wait()
            return
        for pause in (0.0, *PAUSES_BEFORE_RETRIES):
            time.sleep(pause)
            self._retries = 0
            self._begin()
            self._wait()
            if self._failure is None:
                return
        raise Fault(
            f"the last checkpoint, of iteration {self._run.progress.iteration}, could not be written: "
            f"{_causes(self._failure or {})}",
            f"{self._what_is_there()}; mend what failed, then run the same command again: it continues from there",
        )

    def advance(self) -> None:
        """Publish the save under way if all ranks have written; collective.

        The hosts are asked after 1, 2, 4, ... iterations, so a short save is published soon and a long one costs few
        questions.
        """
        if self._under_way is None:
            return
        self._left -= 1
        if self._left > 0:
            return
        self._pause = self._left = min(2 * self._pause, MOST_ITERATIONS_BETWEEN_QUESTIONS)
        if self._under_way.advance():
            self._end()

    def evaluated(self, loss: float | None) -> None:
        """The validation loss of this iteration is known, if it was asked for."""
        if self._retention is not None and loss is not None:
            self._retention.evaluated(self._run.progress.iteration, loss)

    def _begin(self) -> None:
        """Have every rank copy what is to be saved, and begin to write; what fails already is over."""
        assert self._root is not None
        iteration = self._run.progress.iteration
        temporary = checkpoint_folder.temporary_folder(self._root, iteration)
        if self._failed(iteration, self._tried(lambda: tell_warnings(checkpoint_folder.begin(temporary)))):
            return
        snapshot = Snapshot(self._run, temporary)
        if self._failed(iteration, self._tried(lambda: self._make_room(snapshot.shards.num_bytes))):
            if self._is_first:
                checkpoint_folder.discard(temporary)
            return
        snapshot.shards.to_host()

        root = self._root

        def publish(pieces: Sequence[Piece]) -> None:
            if (other := save_lock.lost_to(root)) is not None:
                raise OSError(f"{other} has taken over {root}")
            snapshot.publish(pieces)
            self._tidy(iteration)

        self._under_way = BackgroundSave(iteration, snapshot.shards, publish, self._hosts, self._run.runtime.rank)
        self._pause, self._left = 1, 1

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.wait()
            self._end()

    def _end(self) -> None:
        """Tell how the save under way has ended."""
        ended, self._under_way = self._under_way, None
        assert ended is not None and ended.problems is not None and self._root is not None
        if not self._failed(ended.iteration, ended.problems):
            self._failure = None
            self._say(f"saved checkpoint {checkpoint_folder.iteration_folder(self._root, ended.iteration)}")
        while self._undeleted:
            self._say(f"warning: an old checkpoint could not be deleted: {self._undeleted.pop()}", every_rank=True)

    def _tried(self, attempt: Callable[[], None]) -> Problems:
        """What the first rank does alone, and why it could not: known to all."""
        problem = ""
        try:
            if self._is_first:
                attempt()
        except OSError as error:
            problem = str(error)
        return self._hosts.problems(problem)

    def _failed(self, iteration: int, problems: Problems) -> bool:
        """Count and tell a failure, if it is one."""
        if not problems:
            return False
        self._failure = problems
        self._run.progress.failed_saves += 1
        plan = "; the next log line tries again" if self._retries else ""
        self._say(f"warning: checkpoint of iteration {iteration} could not be written: {_causes(problems)}{plan}")
        events.note(self._run, "failed save", iteration=iteration, cause=_causes(problems))
        return True

    def _make_room(self, num_bytes: int) -> None:
        assert self._retention is not None
        self._retention.make_room(self._run.progress.iteration, int(num_bytes * ROOM))

    def _tidy(self, iteration: int) -> None:
        assert self._retention is not None
        try:
            self._retention.published(iteration)
        except OSError as error:  # the new one is complete all the same
            self._undeleted.append(str(error))

    def _what_is_there(self) -> str:
        newest = None if self._root is None else checkpoint_folder.find(self._root)
        if newest is None:
            return f"no checkpoint is in {self._root}, the whole run is lost"
        return f"what follows {newest} is lost"


def save(run: Run, say: Callable[..., None]) -> None:
    """Save the current iteration of a run that has no loop, and wait for it; every rank must call it.

    Raises:
        Fault: on every rank, it failed.
    """
    with Saving(run, Agreement(run.config.parallel.distributed_timeout_minutes), say) as saving:
        saving.save(last=True)


def save_config(run: Run) -> None:
    """Write the run's `config.yaml` beside its metrics, for `--config`."""
    if run.config.output_dir is not None and run.runtime.rank == 0:
        write_config(run.resolved_config, Path(run.config.output_dir, checkpoint_folder.CONFIG_FILE))


def _causes(problems: Problems) -> str:
    return "; ".join(f"rank {rank}: {problem}" for rank, problem in sorted(problems.items()))
