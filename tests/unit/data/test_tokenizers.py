"""Every tokenizer: round trips, byte lengths, documents that try to forge a control token, save and load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizer_interface import DESCRIPTION_FILE, Tokenizer
from contextlm.data.tokenizers import build_tokenizer, load_tokenizer
from contextlm.errors import UserError

KINDS = ("ByteTokenizer", "SentencePieceTokenizer", "HuggingFaceTokenizer", "GPT2BPETokenizer", "TikTokenizer")
TEXTS = (
    "",
    "the quick brown fox",
    "  two leading spaces, two trailing  ",
    "a\n\nb\r\n\tc    d     e\n",
    "日本語 é ü 😀 \u200b end",
    "NUL \0 and <0x0A> and 12345",
    "one <|endoftext|> two </s> three <unk><|endoftext|><SPECIAL_8>",
)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizer_settings: dict[str, DataConfig]) -> Tokenizer:
    if request.param == "TikTokenizer":
        pytest.importorskip("tiktoken")
    return build_tokenizer(tokenizer_settings[request.param])


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_and_no_document_forges_an_end(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.eod is not None and tokenizer.eod not in ids
    assert all(0 <= token < tokenizer.vocab_size for token in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_byte_lengths_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    lengths = tokenizer.token_byte_lengths()
    assert lengths.shape == (tokenizer.vocab_size,) and lengths.dtype == np.int32
    assert lengths[tokenizer.encode(text)].sum() == len(text.encode())
    assert lengths[tokenizer.eod] == 0


def test_any_cut_of_a_character_decodes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀😀")
    assert len(ids) > 2
    for cut in range(len(ids)):
        assert isinstance(tokenizer.decode(ids[cut:]), str) and isinstance(tokenizer.decode(ids[:cut]), str)
    assert "\ufffd" in tokenizer.decode(ids[:-1])


def test_lone_surrogate_is_a_value_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        tokenizer.encode("a\ud800b")


def test_saved_tokenizer_is_rebuilt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert type(again) is type(tokenizer)
    assert (again.fingerprint, again.vocab_size, again.eod) == (
        tokenizer.fingerprint,
        tokenizer.vocab_size,
        tokenizer.eod,
    )
    assert again.encode(TEXTS[3]) == tokenizer.encode(TEXTS[3])


def test_changed_model_file_is_noticed(byte_level_json: Path, tmp_path: Path) -> None:
    build_tokenizer(hugging_face(byte_level_json)).save(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(byte_level_json.read_bytes() + b"\n")
    with pytest.raises(UserError, match="not the tokenizer that was saved here"):
        load_tokenizer(tmp_path)
    (tmp_path / DESCRIPTION_FILE).write_text("[]")
    with pytest.raises(UserError, match="not the description of a tokenizer"):
        load_tokenizer(tmp_path)


def test_fingerprints_tell_kinds_and_files_apart(tokenizer_settings: dict[str, DataConfig]) -> None:
    pytest.importorskip("tiktoken")
    prints = {build_tokenizer(data).fingerprint for data in tokenizer_settings.values()}
    assert len(prints) == len(KINDS) and all(len(text) == 64 for text in prints)


def test_folder_and_file_are_the_same_tokenizer(byte_level_json: Path) -> None:
    folder = build_tokenizer(hugging_face(byte_level_json.parent))
    assert folder.fingerprint == build_tokenizer(hugging_face(byte_level_json)).fingerprint


def test_eod_rule_of_hugging_face_files(byte_level_json: Path, tmp_path: Path) -> None:
    shutil.copy(byte_level_json, tmp_path / "tokenizer.json")
    assert build_tokenizer(hugging_face(tmp_path)).eod_token == "<|endoftext|>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "q"}}))
    assert build_tokenizer(hugging_face(tmp_path)).eod_token == "q"
    assert build_tokenizer(hugging_face(tmp_path, "<|endoftext|>")).eod_token == "<|endoftext|>"
    with pytest.raises(UserError, match="'nothing' is not in .*--eod-token"):
        build_tokenizer(hugging_face(tmp_path, "nothing"))


@pytest.mark.parametrize("names", [[], ["</s>", "<|endoftext|>"]])
def test_eod_that_cannot_be_told_is_an_error(names: list[str], tmp_path: Path) -> None:
    write_word_level(tmp_path / "tokenizer.json", names)
    with pytest.raises(UserError, match="cannot be told.*--eod-token"):
        build_tokenizer(hugging_face(tmp_path))


def test_ordinary_token_named_as_eod_cannot_be_forged(byte_level_json: Path) -> None:
    """`the` is not special in the file; named as EOD it must still not come out of a document."""
    tokenizer = build_tokenizer(hugging_face(byte_level_json, "the"))
    ids = tokenizer.encode("the other thethe")
    assert tokenizer.eod not in ids and tokenizer.decode(ids) == "the other thethe"


def test_user_defined_piece_as_eod_cannot_be_forged(tmp_path: Path) -> None:
    import sentencepiece as library

    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over lazy dogs"] * 20),
        model_prefix=str(tmp_path / "user"),
        vocab_size=300,
        byte_fallback=True,
        user_defined_symbols=["<|end|>"],
        add_dummy_prefix=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = build_tokenizer(sentencepiece(tmp_path / "user.model", "<|end|>"))
    assert tokenizer._encode("fox<|end|>dogs").count(tokenizer.eod) == 1  # The library alone is fooled.
    ids = tokenizer.encode("fox<|end|>dogs")
    assert tokenizer.eod not in ids and tokenizer.decode(ids) == "fox<|end|>dogs"


def test_vocabulary_that_insists_on_a_control_token_is_an_error(tmp_path: Path) -> None:
    write_word_level(tmp_path / "tokenizer.json", ["</s>"], lowercase=True, words={"<": 1, "/s>": 2, "x": 0})
    tokenizer = build_tokenizer(hugging_face(tmp_path, "x"))
    with pytest.raises(UserError, match="turns ordinary text of a document into x"):
        tokenizer.encode("X")


def test_padding_and_truncation_of_the_file_are_ignored(byte_level_json: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    library = Library.from_file(str(byte_level_json))
    library.enable_truncation(4)
    library.enable_padding(length=10)
    library.save(str(tmp_path / "tokenizer.json"))
    text = "jumps over the lazy dog"
    cut = build_tokenizer(hugging_face(tmp_path))
    assert cut.encode(text) == build_tokenizer(hugging_face(byte_level_json)).encode(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataConfig(), "--tokenizer-type is missing; choose one of"),
        (DataConfig(tokenizer_type="Nonsense"), "Nonsense: no such kind"),
        (DataConfig(tokenizer_type="SentencePieceTokenizer"), "--tokenizer-model: missing"),
        (DataConfig(tokenizer_type="SentencePieceTokenizer", tokenizer_model="no.model"), "no such file"),
        (
            DataConfig(tokenizer_type="SentencePieceTokenizer", tokenizer_model=__file__),
            "not a SentencePiece",
        ),
        (DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model="no.json"), "no such file"),
        (DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=__file__), "not a tokenizer.json"),
        (
            DataConfig(tokenizer_type="ByteTokenizer", tokenizer_model="x"),
            "--tokenizer-model x: not of the ByteTokenizer",
        ),
        (DataConfig(tokenizer_type="ByteTokenizer", eod_token="x"), "--eod-token x: .* is fixed"),
    ],
)
def test_mistakes_have_their_message(data: DataConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_tokenizer(data)


def test_sentencepiece_without_such_an_eod_piece(sentencepiece_model: Path) -> None:
    with pytest.raises(UserError, match="--eod-token <no>: .* no such piece"):
        build_tokenizer(sentencepiece(sentencepiece_model, "<no>"))


def hugging_face(path: Path, eod_token: str | None = None) -> DataConfig:
    return DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(path), eod_token=eod_token)


def sentencepiece(path: Path, eod_token: str | None = None) -> DataConfig:
    return DataConfig(tokenizer_type="SentencePieceTokenizer", tokenizer_model=str(path), eod_token=eod_token)


def write_word_level(
    path: Path, special: list[str], lowercase: bool = False, words: dict[str, int] | None = None
) -> None:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, normalizers

    library = Library(models.WordLevel(words or {"a": 0}, unk_token="a" if not words else "x"))
    library.add_special_tokens(special)
    if lowercase:
        library.normalizer = normalizers.Lowercase()
    library.save(str(path))
