"""The file that a tool's result goes to: tried before the work; an error of the disk after it is told in a sentence."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from contextlm import atomic_files
from contextlm.errors import UserError
from contextlm.preflight.folders import write_error


def problems(flag: str, file: str | Path | None) -> list[str]:
    """Why no result can be written there, for the list of all that is wrong; nothing is made."""
    if file is None:
        return []
    if os.path.isdir(file):
        return [f"{flag} {file}: is a folder; give the name of a file"]
    if os.path.exists(file) and not os.path.isfile(file):
        return [f"{flag} {file}: is a device or a pipe; give the name of a file"]
    return folder_problems(flag, file, os.path.dirname(os.path.abspath(file)))


def folder_problems(flag: str, given: str | Path, folder: str | Path) -> list[str]:
    """The same of the folder that results go to.

    Args:
        given: what the user wrote after `flag`.
    """
    try:
        error = write_error(folder)
    except OSError as unreachable:  # a folder on the way that may not be entered
        error = _reason(unreachable)
    return [] if error is None else [_sentence(flag, given, error)]


@contextlib.contextmanager
def told(flag: str, given: str | Path) -> Iterator[None]:
    """Around the writing of a result: an error of the disk becomes a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(_sentence(flag, given, _reason(error))) from error


def write(flag: str, file: str | Path, content: bytes) -> None:
    """Write the result, whole or not at all, and the folders above it.

    Raises:
        UserError: it cannot be written; what was there is there still.
    """
    with told(flag, file):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_bytes(file, content)


def _sentence(flag: str, given: str | Path, reason: str) -> str:
    return f"{flag} {given}: cannot be written: {reason}; make room, or give another place"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
