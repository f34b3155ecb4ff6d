"""A line is the same document, or the same reject, with orjson and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contextlm.data.sources import json_lines
from contextlm.data.sources.documents import Document, Place, Reject
from contextlm.data.sources.json_lines import Lines
from tests.unit.data.sources.reading import PATIENT

surrogates = st.characters(codec="utf-8") | st.characters(categories=["Cs"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(surrogates),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(surrogates, max_size=3), inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(["text", "n", "\u00e9"]), values, max_size=3)


def parsed(line: bytes) -> list[Document | Reject]:
    return list(Lines(Place("a", 1), line, len(line)).documents(["text"]))


@settings(PATIENT, max_examples=150)
@given(
    record=records,
    ascii_only=st.booleans(),
    place=st.integers(0, 200),
    damage=st.binary(max_size=2)
    | st.sampled_from([b"[" * 1500, b"1" * 5000, b"1e999", b"-0", b"\xef\xbb\xbf", b"\\u0000"]),
)
@example(record={"text": "a"}, ascii_only=True, place=0, damage=b"[" * 900)
@example(record=10**2000, ascii_only=True, place=0, damage=b"")
@example(record="x" * 2000, ascii_only=True, place=0, damage=b"")
@example(record=[[], {}] * 1000, ascii_only=True, place=0, damage=b"")
@example(record={"n": 2**64, "text": "a"}, ascii_only=True, place=0, damage=b"")
@example(record={"n": 10**400, "text": "a"}, ascii_only=True, place=0, damage=b"")
def test_orjson_changes_nothing(record: object, ascii_only: bool, place: int, damage: bytes) -> None:
    pytest.importorskip("orjson")
    line = json.dumps(record, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    line = (line[:place] + damage + line[place:]).replace(b"\n", b" ")
    with_it = parsed(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_fast_loads", lambda: lambda line: None)
        assert parsed(line) == with_it


@pytest.mark.parametrize("depth", [150, 500, 900, 1020, 1030, 5000])
def test_nesting_is_limited_by_json_alone(depth: int) -> None:
    pytest.importorskip("orjson")
    line = b'{"n": ' + b"[" * depth + b"]" * depth + b', "text": "a"}'
    with_it = parsed(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_fast_loads", lambda: lambda line: None)
        assert parsed(line) == with_it


def test_orjson_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without it the tests above compare `json` with itself."""
    pytest.importorskip("orjson")
    monkeypatch.setattr(json_lines, "_parse_slowly", lambda line: pytest.fail("json was asked"))
    (document,) = parsed(b'{"text": "a"}')
    assert document.texts == [["a"]]


def test_lines_of_a_shard_are_counted_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    from contextlm.data.sources.batches import read_batches
    from contextlm.data.sources.sharing import share
    from contextlm.data.sources.units import find_units

    path = tmp_path / "a.jsonl"
    path.write_text("".join('{"text": "a"}\n' if n % 10 else "bad\n" for n in range(1, 101)))
    whole = find_units([str(path)])
    found = []
    for shard in range(3):
        for batch in read_batches(share(whole, 3, shard), ["text"]):
            found += [item.line for item in batch.documents() if isinstance(item, Reject)]
    assert found == list(range(10, 101, 10))
