"""Parquet files, a row group after the other, only the columns that are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from contextlm.data.sources.documents import Place, Unread
from contextlm.data.sources.streams import BLOCK_BYTES
from contextlm.data.sources.tables import Rows, pack, unusable_columns
from contextlm.data.sources.unit import Unit

if TYPE_CHECKING:
    import pyarrow.parquet

MOST_ROWS = 1 << 12


class NotParquet(Exception):
    """A file that cannot be opened as parquet; the text is the reason."""


def read_row_groups(unit: Unit, keys: Sequence[str]) -> Iterator[Rows | Unread]:
    """The rows of a unit. Damage in a row group leaves out the rest of that group."""
    try:
        file = _open(unit.path)
    except NotParquet as error:
        yield Unread(Place(unit.path, 1), str(error), unit.size)
        return
    with file:
        reason = unusable_columns(file.schema_arrow.names, keys)
        if reason is not None:
            yield Unread(Place(unit.path, 1), reason, unit.size)
            return
        row = 1 + sum(file.metadata.row_group(group).num_rows for group in range(unit.start))
        bounds = _bounds(file, unit)
        for group, (begin, end) in enumerate(itertools.pairwise(bounds), unit.start):
            yield from _read_group(file, group, Place(unit.path, row), keys, end - begin)
            row += file.metadata.row_group(group).num_rows


def _read_group(
    file: pyarrow.parquet.ParquetFile, group: int, place: Place, keys: Sequence[str], num_bytes: int
) -> Iterator[Rows | Unread]:
    about = file.metadata.row_group(group)
    rows = max(1, min(MOST_ROWS, BLOCK_BYTES * about.num_rows // max(1, about.total_byte_size)))
    try:
        for batch in file.iter_batches(rows, row_groups=[group], columns=list(keys), use_threads=False):
            yield pack(place, batch, num_bytes)
            place, num_bytes = place._replace(number=place.number + batch.num_rows), 0
    except Exception as error:
        if not _is_damage(error):
            raise
        reason = f"damaged parquet data, not read up to the end of row group {group} ({_first_line(error)})"
        yield Unread(place, reason, num_bytes)


def cut(unit: Unit, offset: int) -> tuple[int, int]:
    """First row group that begins at byte `offset` of the unit or after it, and the byte where it begins.

    Raises:
        NotParquet: there are no row groups.
    """
    with _open(unit.path) as file:
        bounds = _bounds(file, unit)
    place = next(place for place, bound in enumerate(bounds) if bound >= min(offset, bounds[-1]))
    return unit.start + place, bounds[place]


def _bounds(file: pyarrow.parquet.ParquetFile, unit: Unit) -> list[int]:
    """Where the row groups of a unit begin and the last one ends, in bytes; they share its size by their own."""
    stop = file.num_row_groups if unit.stop is None else unit.stop
    sizes = [file.metadata.row_group(group).total_byte_size for group in range(unit.start, stop)]
    total = max(1, sum(sizes))
    bounds, so_far = [0], 0
    for size in sizes:
        so_far += size
        bounds.append(unit.size * so_far // total)
    return bounds


def _open(path: str) -> pyarrow.parquet.ParquetFile:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=BLOCK_BYTES)
    except Exception as error:
        if not _is_damage(error):
            raise
        raise NotParquet(f"not a readable parquet file ({_first_line(error)})") from None


def _is_damage(error: Exception) -> bool:
    """Arrow tells some damage as an OSError too, but with no number of an error of the system."""
    import pyarrow

    if isinstance(error, OSError):
        return not error.errno
    return isinstance(error, pyarrow.ArrowException) and not isinstance(error, MemoryError)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
