"""Files and folders that appear under their final name only when they are complete.

Small files and converted models pass through here. Token streams (`data/indexed_writer.py`) and checkpoints
(`training/checkpoint_folder.py`) follow the same rule: temporary name, fsync, rename.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` so that a kill at any moment leaves the old file or the new one.

    A kill may leave `path`.part; an error leaves nothing.
    """
    temporary = f"{path}.part"
    stream = open(temporary, "wb")
    try:
        with stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """`content` as indented JSON with a final newline."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


@contextlib.contextmanager
def folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, that gets the name `path` when the block has ended without an error.

    A kill leaves it as `path`.part, which the next call empties; an error leaves nothing.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in (*temporary.rglob("*"), temporary):
            sync(file)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
