"""Small data the tests of this folder make for themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from contextlm.data.indexed import IndexedDataset, IndexedWriter
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
