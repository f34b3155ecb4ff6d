"""Small data the tests of this folder make for themselves."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from contextlm.config.schema import DataConfig
from contextlm.data.indexed import IndexedDataset
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.tokenizer_training import train_sentencepiece


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., IndexedDataset]:
    """Writes a dataset whose tokens are 0, 1, 2, ... and whose documents have the given lengths."""

    def make(lengths: Sequence[int], name: str = "data", vocab_size: int = 100_000) -> IndexedDataset:
        bounds = np.concatenate(([0], np.cumsum(lengths)))
        with IndexedWriter(tmp_path / name, vocab_size) as writer:
            for start, end in zip(bounds[:-1], bounds[1:], strict=True):
                writer.add_document(range(start, end))
        return IndexedDataset(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of 320 pieces."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    texts = [f"line {i}: the quick brown fox\n  jumps over {i * 7} lazy dogs\n\n" for i in range(300)]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return train_sentencepiece([str(corpus)], str(folder / "tokenizer"), 320, model_type="bpe")


@pytest.fixture(scope="session")
def byte_level_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer.json with `<|endoftext|>`, as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 5, trainer)
    tokenizer.add_tokens(["    "])  # An added token that is not special, as GPT-NeoX has.
    path = tmp_path_factory.mktemp("byte_level") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def gpt2_files(byte_level_json: Path) -> tuple[Path, Path]:
    """`vocab.json` and `merges.txt` of the vocabulary of `byte_level_json`."""
    model = json.loads(byte_level_json.read_text())["model"]
    folder = byte_level_json.parent / "gpt2"
    folder.mkdir()
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps(model["vocab"]))
    merges.write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in model["merges"]))
    return vocab, merges


@pytest.fixture(scope="session")
def tiktoken_words() -> list[bytes]:
    """A vocabulary in the order of its ranks: the bytes, then what is merged of them."""
    merged = ["th", "the", " t", " the", "qu", "ck", "br", "ow", "own", "fo", "fox", " f", "é", "日", "ll"]
    return [bytes([value]) for value in range(256)] + [word.encode() for word in merged]


@pytest.fixture(scope="session")
def tiktoken_json(tiktoken_words: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those words as Megatron's TikTokenizer reads them."""
    path = tmp_path_factory.mktemp("tiktoken") / "vocabulary.json"
    rows = [
        {"rank": rank, "token_bytes": base64.b64encode(word).decode(), "token_str": word.decode(errors="replace")}
        for rank, word in enumerate(tiktoken_words)
    ]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="session")
def tiktoken_ranks(tiktoken_words: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those words as a plain `.tiktoken` file."""
    path = tmp_path_factory.mktemp("ranks") / "words.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(word) + b" %d\n" % rank for rank, word in enumerate(tiktoken_words)))
    return path


@pytest.fixture(scope="session")
def tokenizer_settings(
    sentencepiece_model: Path, byte_level_json: Path, gpt2_files: tuple[Path, Path], tiktoken_json: Path
) -> dict[str, DataConfig]:
    """Every kind of tokenizer that reads text, with its options."""
    vocab, merges = gpt2_files
    options: dict[str, dict[str, object]] = {
        "ByteTokenizer": {},
        "SentencePieceTokenizer": {"tokenizer_model": str(sentencepiece_model)},
        "HuggingFaceTokenizer": {"tokenizer_model": str(byte_level_json)},
        "GPT2BPETokenizer": {"vocab_file": str(vocab), "merge_file": str(merges)},
        "TikTokenizer": {"tokenizer_model": str(tiktoken_json), "tiktoken_num_special_tokens": 10},
    }
    return {kind: DataConfig(tokenizer_type=kind, **words) for kind, words in options.items()}
