"""The folder that a conversion makes: checked before, and what can go wrong with it told in one sentence."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from contextlm.byte_words import size
from contextlm.errors import UserError


def check_new(save: str | Path) -> None:
    """Refuse a folder that holds something: a conversion never writes over what is there."""
    path = Path(save)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"--save {save}: is there already; give a new folder")


def check_room(save: str | Path, num_bytes: int) -> None:
    """Refuse a disk without room for `num_bytes`, before hours of work end at its edge."""
    parent = Path(save).absolute()
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < num_bytes:
        raise UserError(
            f"--save {save}: needs {size(num_bytes)}, its disk has {size(free)} free; make room or save elsewhere"
        )


@contextlib.contextmanager
def told(save: str | Path) -> Iterator[None]:
    """Around the writing: an error of the disk becomes a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"--save {save}: cannot be written: {error}; nothing was kept") from error
