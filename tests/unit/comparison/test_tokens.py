"""Where a study's tokens come from: a dataset that is there, or text that is tokenized once."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from contextlm.comparison.study import Source
from contextlm.comparison.tokens import data_config, prepare
from contextlm.config.schema import DataConfig
from contextlm.data.sidecar import read_sidecar
from contextlm.errors import UserError
from tests.cli.programs import write_corpus


def test_a_dataset_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.idx").touch()
    source = Source(prefix="mine", tokenizer_type="ByteTokenizer")
    expected = DataConfig(data_path=(str(tmp_path / "mine"),), tokenizer_type="ByteTokenizer")
    assert prepare(source, tmp_path / "study", workers=1) == data_config(source) == expected
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (Source(vocab_size=400), "--text: no text; give --text FILE.jsonl"),
        (Source(vocab_size=400, text="no.jsonl"), "--text no.jsonl: no such file"),
        (Source(vocab_size=400, text="-"), "--text -: the text is read several times"),
        (Source(tokenizer_type="ByteTokenizer", prefix="no"), "data.prefix no: no .*no.idx"),
    ],
)
def test_what_is_not_there(source: Source, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        data_config(source)


def test_text_is_tokenized_once_and_known_by_its_content(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    write_corpus(text, documents=20)
    source = Source(text=str(text), tokenizer_type="ByteTokenizer")
    data = prepare(source, tmp_path, workers=1)
    made = tmp_path / f"{data.data_path[0]}.bin"
    before = made.stat().st_mtime_ns
    assert prepare(source, tmp_path, workers=1) == data and made.stat().st_mtime_ns == before
    write_corpus(text, documents=21)
    other = prepare(source, tmp_path, workers=1)
    assert other.data_path != data.data_path and (tmp_path / f"{other.data_path[0]}.bin").is_file() and made.is_file()


def test_text_may_be_a_folder_of_packed_files(tmp_path: Path) -> None:
    """The digest is that of every file in it."""
    (tmp_path / "text").mkdir()
    write_corpus(tmp_path / "text" / "a.jsonl", documents=10)
    packed = tmp_path / "text" / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "one"}\n'))
    source = Source(text=str(tmp_path / "text"), vocab_size=300)
    data = prepare(source, tmp_path, workers=1)
    assert read_sidecar(str(tmp_path / data.data_path[0])).documents == 11
    packed.write_bytes(gzip.compress(b'{"text": "two"}\n'))
    assert data_config(source).data_path != data.data_path
