"""Whether a folder can be written to: tried, because rights say less than a full or read-only file system does."""

from __future__ import annotations

import contextlib
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

    For a folder that is not there yet it is done in the one above. Nothing is made that another host might look for.
    """
    probe = nearest(folder) / f".preflight.{socket.gethostname()}.{uuid.uuid4().hex}"
    renamed = probe.with_suffix(".renamed")
    try:
        with open(probe, "xb") as stream:
            stream.write(b"preflight\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(probe, renamed)
        renamed.unlink()
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for path in (probe, renamed):
            with contextlib.suppress(OSError):
                path.unlink()
    return None


def free_bytes(folder: str | Path) -> int:
    """What is free on the file system of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free
