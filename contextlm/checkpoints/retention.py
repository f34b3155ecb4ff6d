"""Which checkpoints stay: the newest, those of `--save-retain-interval`, the best. No torch.

Nothing goes before the new one is published. What goes is renamed first, so that a kill leaves nothing that looks
complete.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import threading
from pathlib import Path

from contextlm import atomic_files
from contextlm.byte_words import size
from contextlm.checkpoints import checkpoint_folder
from contextlm.config.schema import CheckpointConfig

BEST = "best_checkpointed_iteration.txt"


class Retention:
    """Of one run; the first rank has it, for the loop and for the thread that publishes.

    Args:
        given: what is asked for; `save` is.
        iteration: with which the run begins.
    """

    def __init__(self, given: CheckpointConfig, iteration: int) -> None:
        assert given.save is not None
        self._given, self._root = given, Path(given.save)
        self._published, self._losses = set[int](), dict[int, float]()
        self._best = self._known_best(iteration)
        self._lock = threading.Lock()

    def evaluated(self, iteration: int, loss: float) -> None:
        """The validation loss of an iteration is known."""
        with self._lock:
            self._losses[iteration] = loss
            self._mark_best()

    def published(self, iteration: int) -> None:
        """A checkpoint is complete: others may go.

        Raises:
            OSError: one of them does not.
        """
        with self._lock:
            self._published.add(iteration)
            self._mark_best()
            for folder in self._superfluous(iteration, to_come=0):
                _delete(folder)

    def make_room(self, iteration: int, num_bytes: int) -> None:
        """See that a checkpoint finds room, and delete for it what would go after it anyway; the newest never does.

        Raises:
            OSError: there is too little.
        """
        with self._lock:
            superfluous = self._superfluous(iteration, to_come=1)
            while (free := shutil.disk_usage(self._root).free) < num_bytes:
                if not superfluous:
                    raise OSError(f"{size(num_bytes)} are needed, {size(free)} are free")
                _delete(superfluous.pop(0))

    def _superfluous(self, newest: int, *, to_come: int) -> list[Path]:
        """The oldest first. What is newer than the run is another's past."""
        limit, interval = self._given.save_total_limit, self._given.save_retain_interval
        if limit is None and interval is None:
            return []
        # As in Megatron-LM, the interval by itself keeps only the last one besides.
        num_newest = max((limit or 1) - to_come, 1)
        own = sorted(found for folder in self._root.iterdir() if (found := _iteration(folder)) is not None)
        own = [iteration for iteration in own if iteration <= newest]
        kept = {*own[-num_newest:], *(n for n in own if interval is not None and n % interval == 0)}
        if self._best is not None:
            kept.add(self._best[0])
        return [checkpoint_folder.iteration_folder(self._root, n) for n in own if n not in kept]

    def _mark_best(self) -> None:
        """Name the best of what was both published and evaluated."""
        if not self._given.save_best:
            return
        for iteration in sorted(self._published & self._losses.keys()):
            loss = self._losses[iteration]
            if loss < (math.inf if self._best is None else self._best[1]):
                self._best = iteration, loss
                atomic_files.write_bytes(self._root / BEST, f"{iteration}\n{loss!r}\n".encode())

    def _known_best(self, iteration: int) -> tuple[int, float] | None:
        """What an earlier part of this run found."""
        try:
            number, loss = (self._root / BEST).read_text().split()
            best = int(number), float(loss)
        except (OSError, ValueError):
            return None
        is_there = checkpoint_folder.iteration_folder(self._root, best[0]).is_dir()
        return best if is_there and best[0] <= iteration and self._given.save_best else None


def _iteration(folder: Path) -> int | None:
    """The iteration of a complete checkpoint; None of everything else."""
    named = re.fullmatch(r"iter_(\d{7,})", folder.name)
    if named is None or folder.is_symlink() or not (folder / checkpoint_folder.RUN_FILE).is_file():
        return None
    return int(named[1])


def _delete(folder: Path) -> None:
    """Under the name of a save that is not complete it is none from the first moment, and the next save removes it."""
    going = checkpoint_folder.temporary_folder(folder.parent, int(folder.name.removeprefix("iter_")))
    checkpoint_folder.discard(going)
    os.rename(folder, going)
    atomic_files.sync(folder.parent)
    shutil.rmtree(going)
