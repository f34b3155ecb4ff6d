"""What there is to read: inputs as users name them become a list of units."""

from __future__ import annotations

import glob
import importlib.util
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextlm.errors import UserError

STDIN = "-"
FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", "": "json"}
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
LIBRARIES = {".zst": "zstandard", "parquet": "pyarrow"}
# What preprocessing writes is not taken for text when it lies in the same folder.
OWN_FILES = ("_document.json", "_rejects.jsonl")


@dataclass(frozen=True)
class Unit:
    """A contiguous piece of one input that can be read by itself.

    Attributes:
        path: the file, or `-` for stdin.
        format: `json` (an object per line).
        size: bytes of the file, as they are stored; 0 where that is not known (stdin).
        compression: `.gz`, `.zst`, `.xz`, `.bz2`, or nothing.
        start: first byte; always the beginning of a line.
        stop: byte after the last one, None for the end of the file.
    """

    path: str
    format: str
    size: int
    compression: str = ""
    start: int = 0
    stop: int | None = None


def find_units(inputs: Sequence[str]) -> list[Unit]:
    """The units of `inputs`, in order.

    Args:
        inputs: files, glob patterns (`**` for any depth), folders (all files below that can be read), `-` for stdin.
            They are read in the order given, the files of a pattern or folder in the order of their paths. Files of
            other kinds, and hidden ones, are passed over there.

    Raises:
        UserError: everything that is wrong with them.
    """
    problems: list[str] = []
    units: list[Unit] = []
    for given in inputs:
        if given == STDIN:
            units.append(Unit(STDIN, "json", 0))
            continue
        try:
            paths = _expanded(given)
        except (UserError, OSError) as error:
            problems.append(f"--input {given}: {error}")
            continue
        for path in paths:
            try:
                units.append(_unit(path))
            except (UserError, OSError) as error:
                problems.append(f"--input {path}: {error}")
    problems += [*_twice(units), *_missing_libraries(units)]
    if problems:
        raise UserError(*problems)
    return units


def _expanded(given: str) -> list[str]:
    """The files that one word names."""
    if os.path.isdir(given):
        found = _below(given)
    elif os.path.lexists(given):
        return [given]
    elif glob.has_magic(given):
        found = sorted(path for path in glob.glob(given, recursive=True) if _is_wanted(path))
    else:
        raise UserError("no such file or folder")
    if not found:
        raise UserError(f"there is no file that can be read; the kinds are {_readable()}")
    return found


def _below(folder: str) -> list[str]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [os.path.join(place, name) for name in names if not name.startswith(".")]
        found += [path for path in paths if _is_wanted(path)]
    return sorted(found)


def _is_wanted(path: str) -> bool:
    """Whether a file that was not named by itself is text."""
    known = Path(path).suffix != "" and _kind(Path(path)) is not None
    return known and not path.endswith(OWN_FILES) and os.path.isfile(path)


def _kind(path: Path) -> tuple[str, str] | None:
    """Format and compression by the name of a file, or None."""
    compression = path.suffix.lower()
    if compression not in COMPRESSIONS:
        compression = ""
    else:
        path = path.with_suffix("")
    form = FORMATS.get(path.suffix.lower())
    return None if form is None or (compression and form == "parquet") else (form, compression)


def _unit(path: str) -> Unit:
    kind = _kind(Path(path))
    if kind is None:
        raise UserError(f"not of a kind that is read ({_readable()}); JSON lines can be piped in: --input - < {path}")
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise UserError("a folder within a pattern")
    if not os.access(path, os.R_OK):
        raise UserError("no permission to read it")
    form, compression = kind
    plain = stat.S_ISREG(status.st_mode) and form == "json" and not compression
    # A file that grows while it is read ends for us where it ended now.
    return Unit(path, form, status.st_size, compression, stop=status.st_size if plain else None)


def _readable() -> str:
    return ", ".join(suffix for suffix in FORMATS if suffix) + f"; also with {', '.join(COMPRESSIONS)}"


def _twice(units: Sequence[Unit]) -> Iterator[str]:
    seen: set[str] = set()
    for unit in units:
        name = unit.path if unit.path == STDIN else os.path.realpath(unit.path)
        if name in seen:
            yield f"--input {unit.path}: given twice, by itself or by a pattern or folder; name each file once"
        seen.add(name)


def _missing_libraries(units: Sequence[Unit]) -> Iterator[str]:
    for need, library in LIBRARIES.items():
        paths = [unit.path for unit in units if need in (unit.compression, unit.format)]
        if paths and importlib.util.find_spec(library) is None:
            yield f"--input {paths[0]}: {library} reads such files and is not installed: pip install {library}"
