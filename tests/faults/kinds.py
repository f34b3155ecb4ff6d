"""The faults, by name, and how often each is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.faults import damages, inside, kills, saves
from tests.faults.trial import Trial


class Kind(NamedTuple):
    """A fault.

    Attributes:
        words: what it is, for the table.
        fault: carries out a trial.
        every: it is part of every turn, of every second one ...; those that take long come seldom, 0 only by name.
    """

    words: str
    fault: Callable[[Trial], None]
    every: int = 1


KINDS = {
    "kill-one-rank": Kind("SIGKILL of one rank", kills.kill_one_rank),
    "kill-all": Kind("SIGKILL of all at once", kills.kill_all),
    "kill-again": Kind("SIGKILL of all, three times", kills.kill_again_and_again, 2),
    "kill-launcher": Kind("SIGKILL of the launcher", kills.kill_launcher),
    "kill-deleting": Kind("SIGKILL of all while old checkpoints are deleted", kills.kill_while_deleting, 2),
    "sigterm": Kind("SIGTERM to the launcher", kills.sigterm),
    "stopped": Kind("SIGSTOP of one rank for a while", kills.stopped_for_a_while, 2),
    "stopped-for-good": Kind("SIGSTOP of one rank for good", kills.stopped_for_good, 2),
    "two-jobs": Kind("a second job on the same folder", kills.two_jobs, 2),
    "save-crash": Kind("death of a rank at a step of a save", saves.crash_in_a_save),
    "save-refused": Kind("a step of a save is refused (no space, I/O error, quota)", saves.refused_in_a_save),
    "full-disk": Kind("a full disk (a small file system)", saves.full_disk),
    "read-only": Kind("a folder that becomes read-only", saves.read_only_folder, 2),
    "slow-folder": Kind("a folder that is slow", saves.slow_folder, 4),
    "damaged-shard": Kind("a shard with a flipped bit, cut short or gone", damages.damaged_shard),
    "damaged-checkpoint": Kind("any file of a checkpoint damaged, with --load-fallback", damages.damaged_checkpoint),
    "damaged-manifest": Kind("a manifest that is changed or cut short", damages.damaged_manifest, 2),
    "damaged-tracker": Kind("a tracker that is empty, gone or wrong", damages.damaged_tracker),
    "damaged-data": Kind("a .bin or .idx cut short, changed or gone", damages.damaged_data),
    "nan-skipped": Kind("a NaN in one rank's gradient", inside.nan_skipped),
    "nan-rolled-back": Kind("the same, with --on-nan rollback", inside.nan_rolled_back),
    "nan-aborted": Kind("the same, with --on-nan abort", inside.nan_aborted, 2),
    "sleeping-rank": Kind("a rank asleep for a moment, or holding the GIL", inside.sleeping_rank, 2),
    "hanging-rank": Kind("a rank asleep for ever, or holding the GIL", inside.hanging_rank),
    "failing-thread": Kind("an exception in the loader's thread", inside.failing_thread, 2),
    "control": Kind("the fault of the controls, without one", saves.crash_in_the_second_save, 0),
    "torchrun-restart": Kind("SIGKILL of one rank under torchrun --max-restarts", kills.torchrun_restarts, 4),
    "torchrun-sigterm": Kind("SIGTERM to torchrun", kills.torchrun_sigterm, 4),
    "torchrun-killed": Kind("SIGKILL of torchrun", kills.torchrun_killed, 4),
}
