"""What an evaluation reads: a split of a dataset as the training's samples or as documents, or texts as samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextlm.config.blend import parse_blend
from contextlm.config.schema import Config, DataConfig
from contextlm.config.split_data import SplitData, split_data
from contextlm.data.dataset_checks import check_dataset
from contextlm.data.datasets import build_datasets, split_documents
from contextlm.data.indexed import IndexedDataset
from contextlm.data.samples import Samples
from contextlm.errors import UserError
from contextlm.inference.subject import Subject, configuration
from contextlm.inference.text_scoring import Document

SPLITS = {"train": "training", "validation": "validation", "test": "test"}


class Split(NamedTuple):
    """One split of some datasets, for one model.

    Attributes:
        config: of the model, with the data.
        name: as `--use-split` says it.
        origin: where its documents are from.
    """

    config: Config
    name: str
    origin: SplitData


def chosen_split(examined: Subject, data_path: Sequence[str] | None, shares: str | None, name: str) -> Split:
    """The split that the options name; what they leave open is as in the training.

    Args:
        examined: the model.
        data_path: `--data-path`.
        shares: `--split`.
        name: `--use-split`.

    Raises:
        UserError: there is no such data.
    """
    if examined.trainer is not None:
        config = examined.trainer.config
    else:
        if data_path is None:
            raise UserError(f"--data-path is missing: {examined.folder} does not say what it was trained on")
        config = configuration(examined.folder)
    given: dict[str, Any] = {"data_path": data_path and tuple(data_path), "split": shares}
    if any(given.values()):  # in place of what the training had for each split
        given |= {"train_data_path": (), "valid_data_path": (), "test_data_path": ()}
    data = dataclasses.replace(config.data, **{key: value for key, value in given.items() if value is not None})
    found = split_data(data).get(SPLITS[name])
    if found is None:
        raise UserError(f"--use-split {name}: {_nothing(data)}")
    return Split(dataclasses.replace(config, data=data), name, found)


def _nothing(data: DataConfig) -> str:
    return "no data of its own" if data.per_split else f"--split {data.document_split} leaves it empty"


def samples_of(examined: Subject, split: Split) -> tuple[Samples, str]:
    """The split as the training's samples, and the fingerprint of the data.

    Raises:
        UserError: it holds none.
    """
    # One split is read here; that others hold enough was asked for by the training.
    training = dataclasses.replace(split.config.training, skip_train=True, full_validation=False, eval_iters=0)
    datasets = build_datasets(dataclasses.replace(split.config, training=training), examined.tokenizer)
    attribute = "train" if split.name == "train" else split.name
    samples = getattr(datasets, attribute)
    if samples is None:
        raise UserError(f"--use-split {split.name}: {_nothing(split.config.data)}", *datasets.notes)
    return samples, datasets.fingerprint


def documents_of(examined: Subject, split: Split) -> list[Document]:
    """The split as documents, without the token that ends each."""
    lengths, end = examined.tokenizer.token_byte_lengths(), examined.tokenizer.eod
    found = []
    for _, prefix in parse_blend(split.origin.words, split.origin.flag):
        dataset = IndexedDataset(prefix)
        check_dataset(dataset, examined.tokenizer)
        bounds = dataset.document_bounds
        chosen = split_documents(len(bounds) - 1, split.origin.shares, split.origin.place)
        for index in range(chosen.start, chosen.stop):
            tokens = dataset.tokens(int(bounds[index]), int(bounds[index + 1] - bounds[index]))
            tokens = tokens[:-1] if len(tokens) and tokens[-1] == end else tokens
            found.append(Document(tokens.tolist(), None if lengths is None else int(lengths[tokens].sum())))
    return found


class PackedDocuments:
    """Documents joined to one stream, an end of document between them, cut into samples as a dataset is.

    Args:
        documents: token ids.
        end: what ends a document; nothing if None.
        length: tokens that a sample reads; it holds one more.

    Raises:
        UserError: there is less than one sample.
    """

    def __init__(self, documents: Sequence[Document], end: int | None, length: int) -> None:
        ends = [] if end is None else [end]
        self._stream = np.array([t for document in documents for t in (*document.tokens, *ends)], dtype=np.int64)
        self._length = length
        self.samples_per_epoch = max(0, len(self._stream) - 1) // length
        if not self.samples_per_epoch:
            raise UserError(
                f"--text: {len(self._stream)} tokens, one sample needs {length + 1}: give more, or --window"
            )

    def sample(self, n: int) -> np.ndarray:
        """Sample n, int64 [length + 1]."""
        return self._stream[n * self._length : (n + 1) * self._length + 1]


def last_word_texts(path: str, read: Sequence[str]) -> list[str]:
    """Passages of a file, stripped; a plain file has one a line."""
    if Path(path).suffix == ".jsonl":
        return [text.strip() for text in read]
    return [line.strip() for text in read for line in text.splitlines() if line.strip()]
