"""Rows of a table, from parquet files and Hub datasets, as Arrow's own bytes until somebody wants the documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from contextlm.data.sources.documents import Document, Place, Reject, Unusable, texts_of

if TYPE_CHECKING:
    import pyarrow


class Rows(NamedTuple):
    """Consecutive rows.

    Attributes:
        place: of the first.
        ipc: the columns that are wanted, as an Arrow stream.
        num_bytes: bytes of the file that were read for them.
    """

    place: Place
    ipc: bytes
    num_bytes: int

    @property
    def in_memory(self) -> int:
        """Bytes."""
        return len(self.ipc)

    def documents(self, keys: Sequence[str]) -> Iterator[Document | Reject]:
        """A document or a reject for each row."""
        import pyarrow

        table = pyarrow.ipc.open_stream(self.ipc).read_all()
        columns = [_values(table.column(key)) for key in keys]
        for number, values in enumerate(zip(*columns, strict=True), self.place.number):
            place = self.place._replace(number=number)
            try:
                yield Document(place, texts_of(dict(zip(keys, values, strict=True)), keys))
            except Unusable as error:
                yield place.reject(str(error))


def pack(place: Place, rows: pyarrow.RecordBatch | pyarrow.Table, num_bytes: int) -> Rows:
    """Rows that can be sent to another process; of a slice only the slice."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, rows.schema) as stream:
        stream.write(rows)
    return Rows(place, sink.getvalue().to_pybytes(), num_bytes)


def unusable_columns(names: Sequence[str], keys: Sequence[str]) -> str | None:
    """Why a table with these columns has not the texts of `keys`, or None if it has."""
    for key in keys:
        if names.count(key) != 1:
            there = ", ".join(map(repr, names)) or "none"
            return f"{'no column' if key not in names else 'more than one column'} {key!r}; columns: {there}"
    return None


def _values(column: pyarrow.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: pyarrow.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return b""  # which is no text
