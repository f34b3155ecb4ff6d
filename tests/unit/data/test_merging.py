"""Merging: the bytes of one run, and what is refused because it does not belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.merging import find_datasets, merge_datasets
from contextlm.data.sidecar import Origin, Part, Source, read_sidecar
from contextlm.errors import UserError

Document = Sequence[Sequence[int]]
ORIGIN = Origin(
    tokenizer_type="ByteTokenizer", tokenizer_fingerprint="a" * 64, vocab_size=257, eod=256, text_bytes=10, rejects=1
)


def write(prefix: Path, documents: Sequence[Document], origin: Origin | None = ORIGIN, vocab_size: int = 257) -> str:
    with IndexedWriter(prefix, vocab_size) as writer:
        for document in documents:
            writer.add_document([token for part in document for token in part], [len(part) for part in document])
        writer.origin = origin
    return str(prefix)


DOCUMENTS = st.lists(st.lists(st.lists(st.integers(0, 256), min_size=1, max_size=4), max_size=3), max_size=5)


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(DOCUMENTS, min_size=1, max_size=4), block=st.integers(1, 5))
def test_merged_datasets_are_the_bytes_of_one(tmp_path_factory: pytest.TempPathFactory, pieces, block: int) -> None:
    """Empty documents, documents of several sequences and empty datasets included, in blocks of any size."""
    folder = tmp_path_factory.mktemp("merged")
    prefixes = [write(folder / f"{i}", documents, None) for i, documents in enumerate(pieces)]
    write(folder / "one", [document for documents in pieces for document in documents], None)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("contextlm.data.indexed_writer.BLOCK", block)
        merge_datasets(prefixes, str(folder / "merged"))
    for suffix in (".bin", ".idx"):
        assert (folder / f"merged{suffix}").read_bytes() == (folder / f"one{suffix}").read_bytes()
    assert not (folder / "merged.json").exists()  # no tokenizer was known


def test_sidecars_are_merged(tmp_path: Path) -> None:
    one, two = Source("a.jsonl", 5, "0"), Source("b.jsonl", 6, "1")
    sources = ((one,), (one, two))
    prefixes = [
        write(tmp_path / f"{i}", [[[i, 9]]], dataclasses.replace(ORIGIN, sources=sources[i], part=Part("run", i, 2)))
        for i in range(2)
    ]
    merge_datasets(prefixes[::-1], str(tmp_path / "m"))  # a run's shards are put in order
    merged = read_sidecar(str(tmp_path / "m"))
    assert merged.describes(IndexedDataset(tmp_path / "m"))
    assert (merged.documents, merged.tokens, merged.text_bytes, merged.rejects) == (2, 4, 20, 2)
    assert merged.sources == (one, two) and merged.part == Part("run", 0, 1)
    assert IndexedDataset(tmp_path / "m").tokens(0, 4).tolist() == [0, 9, 1, 9]


def test_words_name_prefixes_folders_and_globs_in_numeric_order(tmp_path: Path) -> None:
    for i in (2, 10, 1):
        write(tmp_path / f"c-{i}_text", [[[i]]])
    expected = [str(tmp_path / f"c-{i}_text") for i in (1, 2, 10)]
    assert find_datasets([str(tmp_path)]) == expected
    assert find_datasets([f"{tmp_path}/c-*_text"]) == expected == find_datasets([f"{tmp_path}/c-*.idx"])
    assert find_datasets([expected[2], expected[0] + ".bin"]) == [expected[2], expected[0]]
    with pytest.raises(UserError) as caught:
        find_datasets([f"{tmp_path}/none", f"{tmp_path}/x*", expected[0], expected[0]])
    assert [problem.split(":")[1][:20] for problem in caught.value.problems] == [
        " there is no such da", " there is no such da", " named twice",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer_fingerprint": "b" * 64}, "tokenizer ByteTokenizer bbbbbbbbbbbb, but"),
        ({"eod": 0}, "made with EOD id 0, but .* with 256"),
        ({"append_eod": True}, "made with --append-eod True"),
        (None, "it has no .json, so its tokenizer cannot be compared"),
    ],
)
def test_what_differs_is_refused(tmp_path: Path, change: dict | None, message: str) -> None:
    other = None if change is None else dataclasses.replace(ORIGIN, **change)
    prefixes = [write(tmp_path / "a", [[[1]]]), write(tmp_path / "b", [[[2]]], other)]
    for order in (prefixes, prefixes[::-1]):
        with pytest.raises(UserError, match="made with" if change else message):
            merge_datasets(order, str(tmp_path / "m"))
    with pytest.raises(UserError, match=message):
        merge_datasets(prefixes, str(tmp_path / "m"))
    assert not list(tmp_path.glob("m*"))


def test_all_problems_at_once(tmp_path: Path) -> None:
    prefixes = [write(tmp_path / f"{i}", [[[1]]], dataclasses.replace(ORIGIN, part=Part("r", i, 4))) for i in (0, 2)]
    prefixes.append(write(tmp_path / "wide", [[[1]]], dataclasses.replace(ORIGIN, eod=3), vocab_size=100_000))
    with pytest.raises(UserError) as caught:
        merge_datasets(prefixes, str(tmp_path / "m"))
    dtype, eod, missing = caught.value.problems
    assert "its ids are int32, those of" in dtype and "EOD id 3" in eod
    assert missing.startswith("shard 1, 3 of 4 is missing from the run of")


def test_shards_of_two_keys_are_not_mixed(tmp_path: Path) -> None:
    part = dataclasses.replace(ORIGIN, part=Part("r", 0, 2))
    prefixes = [write(tmp_path / key, [[[1]]], part) for key in ("text", "title")]
    with pytest.raises(UserError, match="shard 0 of 2 is there 2 times: .*name those of one key"):
        merge_datasets(prefixes, str(tmp_path / "m"))


def test_a_sidecar_of_other_files_is_refused_and_so_is_writing_onto_an_input(tmp_path: Path) -> None:
    prefixes = [write(tmp_path / "a", [[[1]]]), write(tmp_path / "b", [[[1], [2]]])]
    with pytest.raises(UserError, match="it is one of the datasets to merge"):
        merge_datasets(prefixes, str(tmp_path / "x" / ".." / "a"))
    (tmp_path / "a.json").write_bytes((tmp_path / "b.json").read_bytes())
    with pytest.raises(UserError, match="a.json describes other .bin/.idx files"):
        merge_datasets(prefixes, str(tmp_path / "m"))
