"""Whether a folder can be written to: tried, because rights say less than a full or read-only file system does."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from pathlib import Path


def nearest(folder: str | Path) -> Path:
    """The folder itself, or the one above it in which it would be made."""
    there = Path(os.path.abspath(folder))
    while not there.exists():
        there = there.parent
    return there


def write_error(folder: str | Path) -> str | None:
    """Make a file, bring it to disk, rename and remove it; what the system said if one of these failed.

    A folder that is not there yet is made, and removed again.
    """
    existing = nearest(folder)
    missing = [path for path in (Path(os.path.abspath(folder)), *Path(os.path.abspath(folder)).parents)]
    made = [path for path in missing if path != existing and existing in path.parents]
    probe = Path(folder) / f".preflight.{socket.gethostname()}.{uuid.uuid4().hex}"
    renamed = probe.with_suffix(".renamed")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with open(probe, "xb") as stream:
            stream.write(b"preflight\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(probe, renamed)
        renamed.unlink()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        _remove(probe, renamed, made)
    return None


def free_bytes(folder: str | Path) -> int:
    """What is free on the file system of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


def _remove(probe: Path, renamed: Path, made: list[Path]) -> None:
    for path in (probe, renamed):
        try:
            path.unlink()
        except OSError:
            pass
    for folder in made:  # the innermost first; one in which somebody else has made something stays
        try:
            folder.rmdir()
        except OSError:
            return
