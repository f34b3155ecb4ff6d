"""Is there room for the checkpoints of a run? By their size, known beforehand, and how many are there at once."""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.checkpoint_size import checkpoint_bytes, num_kept
from contextlm.byte_words import size
from contextlm.config.schema import Config
from contextlm.preflight.folders import free_bytes


class Room(NamedTuple):
    """What `--save` needs and has.

    Attributes:
        free: bytes of its file system.
        each: bytes of one checkpoint.
        planned: checkpoints of the run that are there at once at most.
    """

    free: int
    each: int
    planned: int

    @property
    def needed(self) -> int:
        """Checkpoints that must find room: a new one is complete before an older one may go."""
        return min(self.planned, 2)

    @property
    def fitting(self) -> int:
        """Checkpoints that do."""
        return self.free // self.each


def room(config: Config, vocab_size: int, world_size: int, iteration: int) -> Room | None:
    """Of a run that begins after `iteration`; None if it saves nothing."""
    planned = num_kept(config, world_size, iteration)
    if config.checkpoint.save is None or planned == 0:
        return None
    return Room(free_bytes(config.checkpoint.save), checkpoint_bytes(config, vocab_size), planned)


def problems(found: Room, save: str) -> list[str]:
    """What forbids the run."""
    if found.fitting >= found.needed:
        return []
    return [
        f"--save {save}: {size(found.free)} free, {found.needed} checkpoint(s) of {size(found.each)} need "
        f"{size(found.needed * found.each)}; make room or save elsewhere"
    ]


def warnings(found: Room, save: str) -> list[str]:
    """What will end it later."""
    if found.fitting >= found.planned or problems(found, save):
        return []
    return [
        f"--save {save}: {size(found.free)} free are enough for {found.fitting} of the {found.planned} checkpoints of "
        f"{size(found.each)} that the run keeps; use a larger --save-interval, or --save-total-limit"
    ]
