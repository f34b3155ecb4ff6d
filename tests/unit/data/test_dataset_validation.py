"""Validation finds each fault that is put in, all at once, and none in a sound dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from contextlm.data import dataset_validation
from contextlm.data.byte_tokenizer import ByteTokenizer
from contextlm.data.dataset_validation import samples, validate_dataset
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.sidecar import Origin

EOD = 256
DOCUMENTS: tuple[list[int], ...] = ([97, 98, EOD], [], [99, EOD], [100, 101, 102, EOD])


@pytest.fixture(autouse=True, params=[2, 1 << 22])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents lie in one chunk, or across many."""
    monkeypatch.setattr(dataset_validation, "CHUNK_TOKENS", request.param)


def write(folder: Path, documents: Sequence[Sequence[int]] = DOCUMENTS, append_eod: bool | None = True) -> str:
    tokenizer = ByteTokenizer()
    with IndexedWriter(folder / "data", 60_000) as writer:
        for document in documents:
            writer.add_document(document)
        writer.origin = Origin(
            tokenizer_type=tokenizer.kind,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eod=tokenizer.eod,
            text_bytes=6,
            append_eod=append_eod,
        )
    return str(folder / "data")


def test_a_sound_dataset(tmp_path: Path) -> None:
    found = validate_dataset(write(tmp_path), ByteTokenizer())
    assert (found.problems, found.notes) == ([], [])


def test_without_append_eod(tmp_path: Path) -> None:
    prefix = write(tmp_path, [[97], [98, 99]], append_eod=False)
    found = validate_dataset(prefix)
    assert found.problems == [] and "no document ends with EOD" in found.notes[0]
    found = validate_dataset(write(tmp_path, [[97], [98, 99]], append_eod=True))
    assert "2 of 2 documents do not end with EOD (id 256)" in found.problems[0]


def test_faults_in_the_tokens_are_all_found(tmp_path: Path) -> None:
    prefix = write(tmp_path, [[97, EOD], [], [98, EOD, 99, EOD], [300, 98], [400, EOD]])
    path = tmp_path / "data.json"
    path.write_text(path.read_text().replace('"max_token_id": 400', '"max_token_id": 300'))
    outside, largest, ends, inside = validate_dataset(prefix).problems
    assert "2 ids are outside the vocabulary of 257, the first in document 3 of those that are not empty" in outside
    assert "says the largest id is 300, it is 400" in largest
    assert "1 of 4 documents do not end with EOD" in ends
    assert "EOD (id 256) stands 1 times inside documents, first in document 2" in inside


def test_faults_in_the_files_are_all_found(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    tokens, index = (tmp_path / "data.bin").read_bytes(), (tmp_path / "data.idx").read_bytes()
    (tmp_path / "data.bin").write_bytes(tokens[:-1])
    (tmp_path / "data.idx").write_bytes(index[:-1] + b"\x07")
    problems = validate_dataset(prefix, ByteTokenizer()).problems
    assert len(problems) == 2 and "data.idx is damaged" in problems[0] and "its hash is another" in problems[1]
    (tmp_path / "data.idx").write_bytes(index)
    (problem,) = validate_dataset(prefix).problems
    assert "data.bin is truncated: 18 bytes expected, 17 found" in problem
    (tmp_path / "data.bin").write_bytes(tokens + b"\0\0")
    (problem,) = validate_dataset(prefix).problems
    assert "data.bin is longer than its index says: 18 bytes expected, 20 found" in problem
    (tmp_path / "data.bin").unlink()
    (tmp_path / "data.json").write_text("{")
    assert len(validate_dataset(prefix).problems) == 2


def test_another_tokenizer_and_no_sidecar(tmp_path: Path, sentencepiece_model: Path) -> None:
    from contextlm.data.sentencepiece_tokenizer import SentencePieceTokenizer

    prefix = write(tmp_path)
    problems = validate_dataset(prefix, SentencePieceTokenizer(sentencepiece_model)).problems
    assert "made with a ByteTokenizer" in problems[0] and "do not end with EOD (id 1)" not in " ".join(problems)
    (tmp_path / "data.json").unlink()
    found = validate_dataset(prefix)
    assert found.problems == [] and len(found.notes) == 2 and "EOD id is not known" in found.notes[1]


def test_samples(tmp_path: Path) -> None:
    dataset = IndexedDataset(write(tmp_path))
    assert samples(dataset, 2, ByteTokenizer()) == ["document 1, 3 tokens: 'ab'", "document 3, 4 tokens: 'def'"]
    assert samples(dataset, 9, None, 2)[2] == "document 3, 4 tokens: 100 101 ..."
    assert samples(dataset, 0, None) == []
