"""Tokenizers from Megatron-LM's other files: GPT-2's two, tiktoken's vocabularies, and numbers that need none."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer, load_tokenizer
from contextlm.errors import UserError

TEXTS = ("the quick brown fox's  \n\n12345 é日本😀", "", " ", "<|endoftext|> the </s>", "it'll\r\nbe\t<SPECIAL_7>")


def test_gpt2_files_give_the_ids_of_the_tokenizer_json(gpt2_files: tuple[Path, Path], byte_level_json: Path) -> None:
    """Checked by hand on GPT-2's own files too: 300 documents of English, ids and vocabulary equal."""
    two = gpt2(*gpt2_files)
    data = json.loads(byte_level_json.read_text())
    data["added_tokens"] = [entry for entry in data["added_tokens"] if entry["special"]]  # merges.txt has no others
    plain = gpt2_files[0].parent / "tokenizer.json"
    plain.write_text(json.dumps(data))
    one = build_tokenizer(DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(plain)))
    assert (two.vocab_size, two.eod, two.eod_token) == (one.vocab_size, one.eod, "<|endoftext|>")
    assert [two.encode(text) for text in TEXTS] == [one.encode(text) for text in TEXTS]
    assert (two.token_byte_lengths() == one.token_byte_lengths()).all()


def test_comments_in_merges_are_only_in_the_first_line(gpt2_files: tuple[Path, Path], tmp_path: Path) -> None:
    """`# #` is a merge, and a file written on Windows is the same."""
    vocab = json.loads(gpt2_files[0].read_text())
    vocab["##"] = len(vocab)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    merges = gpt2_files[1].read_text() + "# #\n"
    for text in (merges, merges.replace("\n", "\r\n"), merges.replace("#version: 0.2\n", "")):
        (tmp_path / "merges.txt").write_bytes(text.encode())
        assert gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt").encode("a##") == [vocab["a"], vocab["##"]]


def test_gpt2_files_that_do_not_fit(gpt2_files: tuple[Path, Path], tmp_path: Path) -> None:
    vocab, merges = gpt2_files
    for name, content in {"words": "three words here", "absent": "q Q", "list": "[1]", "text": '{"a": "b"}'}.items():
        (tmp_path / name).write_text(content + "\n")
    with pytest.raises(UserError, match="--merge-file .*'three words here' is no pair"):
        gpt2(vocab, tmp_path / "words")
    with pytest.raises(UserError, match="--merge-file .* does not belong to --vocab-file"):
        gpt2(vocab, tmp_path / "absent")
    for wrong in ("list", "text", "words"):
        with pytest.raises(UserError, match="--vocab-file .*: not a vocab.json"):
            gpt2(tmp_path / wrong, merges)
    with pytest.raises(UserError, match="--merge-file .*: no such file"):
        gpt2(vocab, tmp_path / "none")


def test_eod_of_gpt2_files(gpt2_files: tuple[Path, Path], tmp_path: Path) -> None:
    vocab, merges = (Path(shutil.copy(path, tmp_path)) for path in gpt2_files)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "q"}))
    assert gpt2(vocab, merges).eod_token == "q"
    assert gpt2(vocab, merges, "<|endoftext|>").eod_token == "<|endoftext|>"
    (tmp_path / "tokenizer_config.json").unlink()
    entries = {text: token for text, token in json.loads(vocab.read_text()).items() if text != "<|endoftext|>"}
    vocab.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="cannot be told.*--eod-token"):
        gpt2(vocab, merges)


def test_tiktoken_counts_special_tokens_first(tiktoken_json: Path, tiktoken_words: list[bytes]) -> None:
    """Megatron-LM's layout: `</s>`, its EOD, is 2, and the first byte follows the last special token."""
    tokenizer = tiktoken(tiktoken_json, tiktoken_num_special_tokens=10)
    assert (tokenizer.eod, tokenizer.eod_token) == (2, "</s>")
    assert tokenizer.vocab_size == 10 + len(tiktoken_words)
    assert tokenizer.encode("the") == [10 + tiktoken_words.index(b"the")]
    assert tokenizer.encode("\0") == [10]
    assert tiktoken(tiktoken_json).encode("\0") == [1000]  # Megatron-LM's default
    named = tiktoken(tiktoken_json, eod_token="<SPECIAL_9>", tiktoken_num_special_tokens=10)
    assert named.eod == 9 and 9 not in named.encode("a<SPECIAL_9>b")


def test_tiktoken_patterns_differ(tiktoken_json: Path) -> None:
    """v2 cuts before a capital inside a word, v1 does not; cl100k keeps three digits together."""
    words = [(b"aB",), (b"12",)]
    rows = json.loads(tiktoken_json.read_text())
    for (word,) in words:
        rows.append({"rank": len(rows), "token_bytes": base64.b64encode(word).decode(), "token_str": ""})
    path = tiktoken_json.parent / "more.json"
    path.write_text(json.dumps(rows))
    lengths = {
        pattern: [len(tiktoken(path, tiktoken_pattern=pattern).encode(text)) for text in ("aB", "12")]
        for pattern in (None, "v1", "v2", "gpt2", "cl100k", "o200k")
    }
    assert lengths == {None: [2, 2], "v1": [1, 2], "v2": [2, 2], "gpt2": [1, 1], "cl100k": [1, 1], "o200k": [2, 1]}
    prints = {tiktoken(path, tiktoken_pattern=pattern).fingerprint for pattern in lengths}
    assert len(prints) == 5  # None is v2


def test_tiktoken_vocabulary_can_be_cut(tiktoken_json: Path) -> None:
    short = tiktoken(tiktoken_json, vocab_size=10 + 256, tiktoken_num_special_tokens=10)
    assert short.vocab_size == 266 and len(short.encode("the")) == 3
    with pytest.raises(UserError, match="--vocab-size 400: .* 271 tokens, with 10 special ones that makes 281"):
        tiktoken(tiktoken_json, vocab_size=400, tiktoken_num_special_tokens=10)


def test_plain_rank_file(tiktoken_ranks: Path, tiktoken_words: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be told.*--eod-token"):
        tiktoken(tiktoken_ranks)
    tokenizer = tiktoken(tiktoken_ranks, eod_token="<|end|>")
    assert tokenizer.eod == len(tiktoken_words) == tokenizer.vocab_size - 1
    assert tokenizer.encode("the") == [tiktoken_words.index(b"the")]
    path = Path(shutil.copy(tiktoken_ranks, tmp_path))
    entries = {"300": {"content": "<|end_of_text|>", "special": True}, "299": {"content": "x", "special": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))
    assert (tiktoken(path).eod, tiktoken(path).vocab_size) == (300, 301)
    tiktoken(path).save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == tiktoken(path).fingerprint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"a": 1}'),
        ("a.json", '[{"rank": 0, "token_bytes": "AQ=="}]'),
        ("a.json", '[{"rank": 1, "token_bytes": "AA=="}]'),
        ("a.json", "["),
        ("a.tiktoken", "AA== 0\nAQ== 0\n"),
        ("a.tiktoken", "not base64\n"),
        ("a.tiktoken", ""),
        ("a.tiktoken", "\udcff\udcfe\n"),
    ],
)
def test_what_is_no_tiktoken_file(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match="--tokenizer-model .*: not a"):
        tiktoken(tmp_path / name)


def test_numbers_are_tokens(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(DataConfig(tokenizer_type="NullTokenizer"), 100)
    assert (tokenizer.vocab_size, tokenizer.eod) == (101, 100)  # as in Megatron-LM
    assert tokenizer.encode("3 14 15\n92") == [3, 14, 15, 92] and tokenizer.encode("") == []
    assert tokenizer.decode([3, 14, 100]) == "3 14"
    assert tokenizer.token_byte_lengths() is None
    for text in ("3 100", "-1", "1.5", "one"):
        with pytest.raises(UserError, match="is no id; .* from 0 to 99"):
            tokenizer.encode(text)
    with pytest.raises(UserError, match="--vocab-size: missing"):
        build_tokenizer(DataConfig(tokenizer_type="NullTokenizer"))
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.vocab_size, again.fingerprint) == (101, tokenizer.fingerprint)
    assert again.fingerprint != build_tokenizer(DataConfig(tokenizer_type="NullTokenizer"), 101).fingerprint


def gpt2(vocab: Path, merges: Path, eod_token: str | None = None) -> Tokenizer:
    files = {"vocab_file": str(vocab), "merge_file": str(merges)}
    return build_tokenizer(DataConfig(tokenizer_type="GPT2BPETokenizer", eod_token=eod_token, **files))


def tiktoken(path: Path, vocab_size: int | None = None, **options: object) -> Tokenizer:
    pytest.importorskip("tiktoken")
    data = DataConfig(tokenizer_type="TikTokenizer", tokenizer_model=str(path), **options)
    return build_tokenizer(data, vocab_size)
