"""What surrounds a conversion: the folder that appears when it is complete, room on the disk, tokenizers for others."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from contextlm import atomic_files
from contextlm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from contextlm.data.tokenizer_training import train_sentencepiece
from contextlm.errors import UserError
from contextlm.interop.conversion_folder import check_new, check_room
from contextlm.interop.safetensors_folder import write_weights
from contextlm.interop.tokenizer_files import write_tokenizer
from tests.cli.programs import write_corpus


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "out"
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "of a kill").touch()
    with atomic_files.folder(final) as folder:
        assert list(folder.iterdir()) == [] and not final.exists()
        (folder / "weights").write_text("all")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "weights"]
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), atomic_files.folder(tmp_path / "other") as folder:
            (folder / "weights").write_text("some")
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_there_and_what_has_no_room_is_refused(tmp_path: Path) -> None:
    check_new(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_new(tmp_path / "empty")
    with pytest.raises(UserError, match="is there already; give a new folder"):
        check_new(tmp_path)
    check_room(tmp_path / "not" / "yet", 1)
    with pytest.raises(UserError, match=r"needs 1000000000 TB, its disk has .* free"):
        check_room(tmp_path / "not" / "yet", 10**21)


def test_small_sizes_are_told_in_small_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    weights = [(name, torch.zeros(500)) for name in ("a", "b")]
    write_weights(tmp_path, weights, 4000, 2000, said.append)
    assert said == [
        "wrote model-00001.safetensors: 2.0 kB of 4.0 kB",
        "wrote model-00002.safetensors: 4.0 kB of 4.0 kB",
    ]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000))
    with pytest.raises(UserError, match=r"needs 3\.0 MB, its disk has 1\.5 MB free"):
        check_room(tmp_path, 3_000_000)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_for_transformers(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    write_corpus(tmp_path / "corpus.jsonl")
    ours = SentencePieceTokenizer(
        train_sentencepiece([str(tmp_path / "corpus.jsonl")], str(tmp_path / kind), 400, kind)
    )
    assert write_tokenizer(ours, tmp_path / "folder", 66) is None
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    text = (tmp_path / "corpus.jsonl").read_text()[:2000] + "  Gr\u00fc\u00dfe\n\U0001f600"
    assert theirs(text).input_ids == ours.encode(text) and theirs.decode(ours.encode(text)) == text
    assert theirs.eos_token_id == ours.eod


def test_a_sentencepiece_model_that_normalises_is_told(tmp_path: Path) -> None:
    """tokenizer.json could not say what it does to a text: only the model's own file is written."""
    import sentencepiece

    write_corpus(tmp_path / "corpus.jsonl")
    model = io.BytesIO()
    lines = iter((tmp_path / "corpus.jsonl").read_text().splitlines())
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=400, byte_fallback=True, minloglevel=2
    )
    (tmp_path / "nfkc.model").write_bytes(model.getvalue())
    note = write_tokenizer(SentencePieceTokenizer(tmp_path / "nfkc.model"), tmp_path / "folder", 66)
    assert note is not None and "transformers cannot split text as this SentencePieceTokenizer does" in note
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "contextlm_tokenizer.json",
        "tokenizer.model",
    ]
