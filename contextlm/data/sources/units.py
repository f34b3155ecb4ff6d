"""What there is to read: inputs as users name them become a list of units."""

from __future__ import annotations

import glob
import importlib.util
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from contextlm.data.sources.unit import HUB, STDIN, Unit
from contextlm.errors import UserError

FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet", ".txt": "text"}
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
READABLE = f"{', '.join(FORMATS)}; all but parquet also with {', '.join(COMPRESSIONS)}"
TXT_DOCUMENTS = ("file", "blank-line")
# The library that a compression or a format needs, and what pip calls it.
LIBRARIES = {".zst": "zstandard", "parquet": "pyarrow", "hub": "datasets", "saved": "datasets"}
# What preprocessing writes is not taken for text when it lies in the same folder.
OWN_FILES = ("_document.json", "_rejects.jsonl")


def find_units(inputs: Sequence[str], txt_documents: str = "file") -> list[Unit]:
    """The units of `inputs`, in order.

    Args:
        inputs: files, glob patterns (`**` for any depth), folders (all files below that can be read), `-` for stdin
            (JSON lines), `hf://` datasets. They are read in the order given, the files of a pattern or folder in the
            order of their paths. Hidden files and those of other kinds are passed over there.
        txt_documents: what a document is in a `.txt` file: all of the `file`, or what lies between two `blank-line`s.

    Raises:
        UserError: everything that is wrong with them.
    """
    problems: list[str] = []
    units: list[Unit] = []
    for given in inputs:
        try:
            paths = [given] if given == STDIN or given.startswith(HUB) else _expanded(given)
        except UserError as error:
            problems.append(f"--input {given}: {error}")
            continue
        for path in paths:
            try:
                units.append(_unit(path, txt_documents))
            except UserError as error:
                problems.append(f"--input {path}: {error}")
    problems += [*_twice(units), *_missing_libraries(units)]
    if problems:
        raise UserError(*problems)
    return units


def _expanded(given: str) -> list[str]:
    """The files that one word names."""
    if os.path.isdir(given):
        found = set(_below(given))
    elif os.path.lexists(given):
        return [given]
    elif glob.has_magic(given):
        # A folder among them is read as if it were named, so that quotes around a pattern change nothing.
        matches = glob.glob(given, recursive=True)
        found = {path for match in matches for path in (_below(match) if os.path.isdir(match) else [match])}
    else:
        raise UserError("no such file or folder")
    wanted = sorted(path for path in found if _is_wanted(path))
    if not wanted:
        raise UserError(f"there is no file that can be read; kinds: {READABLE}")
    return wanted


def _below(folder: str) -> Iterator[str]:
    """All files at any depth, but for hidden ones; links are followed."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}")

    from contextlm.data.sources.hub import is_saved_dataset

    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if is_saved_dataset(names):
            raise UserError(f"{place} was made by save_to_disk; --input {HUB}{place} reads it")
        real = os.path.realpath(place)
        if real in seen:  # A link leads back.
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # The same way round everywhere.
        yield from (os.path.join(place, name) for name in names if not name.startswith("."))


def _is_wanted(path: str) -> bool:
    """Whether a file that was not named by itself is text."""
    inner, _ = _suffixes(path)
    return inner in FORMATS and _form(path) is not None and not path.endswith(OWN_FILES)


def _suffixes(path: str) -> tuple[str, str]:
    """How the name ends, before the compression, and the compression."""
    name = Path(path)
    suffix = name.suffix.lower()
    return (name.with_suffix("").suffix.lower(), suffix) if suffix in COMPRESSIONS else (suffix, "")


def _form(path: str) -> tuple[str, str] | None:
    """Format and compression by the name of a file, or None; a name that says nothing stands for JSON lines."""
    inner, compression = _suffixes(path)
    form = FORMATS.get(inner) if inner else "json"
    return None if form is None or (compression and form == "parquet") else (form, compression)


def _unit(path: str, txt_documents: str) -> Unit:
    if path == STDIN:
        return Unit(STDIN, "json", 0)
    if path.startswith(HUB):
        if not _installed("datasets"):
            return Unit(path, "hub", 0)  # What is missing is said below.
        from contextlm.data.sources.hub import find_dataset

        return find_dataset(path)
    found = _form(path)
    if found is None:
        raise UserError(f"not of a kind that is read ({READABLE}); JSON lines can be piped in: --input - < {path}")
    form, compression = found
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(str(error.strerror)) from None
    if not os.access(path, os.R_OK):
        raise UserError("no permission to read it")
    if form == "text" and txt_documents == "blank-line":
        form = "blocks"
    cuttable = form == "json" and not compression and stat.S_ISREG(status.st_mode)
    # A file that grows while it is read ends for us where it ended now.
    return Unit(path, form, status.st_size, compression, stop=status.st_size if cuttable else None)


def _twice(units: Sequence[Unit]) -> Iterator[str]:
    seen: set[str] = set()
    for unit in units:
        name = unit.path if unit.path == STDIN or unit.path.startswith(HUB) else os.path.realpath(unit.path)
        if name in seen:
            yield f"--input {unit.path}: given twice, by itself or by a pattern or folder; name each file once"
        seen.add(name)


def _missing_libraries(units: Sequence[Unit]) -> Iterator[str]:
    for need, library in LIBRARIES.items():
        paths = [unit.path for unit in units if need in (unit.compression, unit.format)]
        if paths and not _installed(library):
            yield f"--input {paths[0]}: it is read with {library}, which is not installed: pip install {library}"


def _installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
