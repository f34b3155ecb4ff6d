"""JSON lines: one object per line, `.jsonl`, `.json`, `.ndjson`.

Reading only cuts blocks at line ends; parsing happens where `Lines.documents` is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from contextlm.data.sources.documents import (
    MAX_DOCUMENT_BYTES,
    Document,
    Place,
    Reject,
    Unread,
    Unusable,
    kind_of,
    texts_of,
)
from contextlm.data.sources.streams import Damaged, read_blocks
from contextlm.data.sources.unit import Unit

# How other things begin than lines of JSON, and what to do with them.
NOT_LINES = {
    b"\x1f\x8b": "gzip data; name the file .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "Zstandard data; name the file .jsonl.zst",
    b"\xfd7zXZ\0": "xz data; name the file .jsonl.xz",
    b"BZh": "bzip2 data; name the file .jsonl.bz2",
    b"PAR1": "a parquet file; name it .parquet",
    b"\xff\xfe": "UTF-16 text; `iconv -f UTF-16 -t UTF-8` makes UTF-8 of it",
    b"\xfe\xff": "UTF-16 text; `iconv -f UTF-16 -t UTF-8` makes UTF-8 of it",
}
# From this depth on `json`, whose own limit depends on what runs it, decides alone what is readable.
NESTING = 500
TOO_LONG = f"a line of more than {MAX_DOCUMENT_BYTES >> 20} MiB"
# Numbers are never text, so their value does not matter; `int` refuses more than 4300 digits.
_DECODER = json.JSONDecoder(parse_int=float)


class Lines(NamedTuple):
    """Whole lines of a file.

    Attributes:
        place: where the first of them begins.
        raw: their bytes.
        num_bytes: bytes of the file that were read for them.
    """

    place: Place
    raw: bytes
    num_bytes: int

    @property
    def in_memory(self) -> int:
        """Bytes."""
        return len(self.raw)

    def documents(self, keys: Sequence[str]) -> Iterator[Document | Reject]:
        """A document or a reject for each line that is not blank."""
        path, first, offset = self.place
        for number, line in enumerate(self.raw.split(b"\n"), first):
            if line and not line.isspace():
                place = Place(path, number, offset)
                try:
                    yield Document(place, texts_of(parse(line), keys))
                except Unusable as error:
                    yield place.reject(str(error))


def read_lines(unit: Unit) -> Iterator[Lines | Unread]:
    """The lines of a unit in pieces of about `BLOCK_BYTES`; a long line makes a long piece."""
    place = Place(unit.path, 1, unit.start)
    parts: list[bytes] = []  # of the line that goes on in the next block
    size = num_bytes = 0  # of that line, and read since the last piece
    try:
        for block in read_blocks(unit):
            num_bytes += block.num_bytes
            data = block.data
            if place.number == 1 and not (size or unit.start or unit.format != "json"):
                _refuse_packed(data)
            end = data.find(b"\n") + 1
            if size + (end or len(data)) > MAX_DOCUMENT_BYTES:
                parts.clear()
                size += end or len(data)
                if not end:
                    continue
                yield Unread(place, TOO_LONG, num_bytes)
                place, data = place._replace(number=place.number + 1), data[end:]
                size = num_bytes = 0
            if end := data.rfind(b"\n") + 1:
                raw = b"".join([*parts, data[:end]])
                yield Lines(place, raw, num_bytes)
                place, data = place._replace(number=place.number + raw.count(b"\n")), data[end:]
                parts, size, num_bytes = [], 0, 0
            parts.append(data)
            size += len(data)
    except Damaged as error:
        cut = b"".join(parts)
        if _is_whole(cut):
            yield Lines(place, cut, 0)
            place = place._replace(number=place.number + 1)
        yield Unread(place, str(error), num_bytes)
    else:
        if size > MAX_DOCUMENT_BYTES:
            yield Unread(place, TOO_LONG, num_bytes)
        elif size or num_bytes:
            yield Lines(place, b"".join(parts), num_bytes)


def _is_whole(line: bytes) -> bool:
    """Whether a line that the damage cut off has all that belongs to it: no beginning of an object is an object."""
    try:
        parse(line)
    except Unusable:
        return False
    return True


def _refuse_packed(beginning: bytes) -> None:
    """One reject for what would be one for each of its lines."""
    for mark, what in NOT_LINES.items():
        if beginning.startswith(mark):
            raise Damaged(f"the content is {what}")


def parse(line: bytes) -> Mapping[str, Any]:
    """The object of a line; the same whether orjson is installed or not.

    Raises:
        Unusable: it is no JSON object.
    """
    try:
        record = _fast_loads()(line)
    except ValueError:
        record = None  # `json` has the last word: it reads NaN, lone surrogates outside the text, a byte order mark.
    if record is None or (len(line) > 2 * NESTING and _is_deep(record)):
        record = _parse_slowly(line)
    if not isinstance(record, dict):
        hint = "; `jq -c .[]` writes its objects one per line" if isinstance(record, list) else ""
        raise Unusable(f"a JSON object is expected, not {kind_of(record)}{hint}")
    return record


def _parse_slowly(line: bytes) -> Any:
    try:
        return _DECODER.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Unusable(f"not valid UTF-8 (byte {error.start} of the line)") from None
    except json.JSONDecodeError as error:
        hint = ""
        if line.strip() in (b"{", b"["):
            hint = "; one object per line is expected: `jq -c .` writes them so, `jq -c .[]` the objects of a list"
        raise Unusable(f"not valid JSON ({error.msg} at column {error.colno}){hint}") from None
    except RecursionError:
        raise Unusable("not readable JSON (nested too deeply)") from None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(NESTING):
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return False
        level = [item for outer in containers for item in (outer.values() if isinstance(outer, dict) else outer)]
    return True


@lru_cache(maxsize=1)
def _fast_loads() -> Callable[[bytes], Any]:
    """orjson's, or one that leaves everything to `json`."""
    try:
        import orjson
    except ImportError:
        return lambda line: None
    return orjson.loads
