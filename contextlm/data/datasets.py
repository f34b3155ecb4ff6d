"""From the configuration to the samples of training, validation and test.

Opens and checks every dataset of the blend (`indexed.py`, `dataset_checks.py`), splits its documents, and
finds out before training whether there is enough. What a sample is: `samples.py`; batches: `loader.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from contextlm.config.blend import parse_blend, parse_split
from contextlm.config.schema import Config
from contextlm.data.blended_samples import BlendedSamples
from contextlm.data.dataset_checks import check_dataset
from contextlm.data.indexed import IndexedDataset
from contextlm.data.samples import EpochSamples
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError

SPLITS = ("training", "validation", "test")
FINGERPRINT_SPAN_TOKENS = 1 << 19


@dataclass(frozen=True)
class Datasets:
    """The samples of a run.

    Attributes:
        train, validation, test: samples, or None where the split holds none.
        notes: one sentence for each thing that was left out.
        fingerprint: sha256 of the data, the blend, the split, the sample length and the seed; equal for equal
            samples. Of each dataset it covers the index and both ends of the tokens, not their paths.
    """

    train: EpochSamples | BlendedSamples | None
    validation: EpochSamples | BlendedSamples | None
    test: EpochSamples | BlendedSamples | None
    notes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class _Source:
    dataset: IndexedDataset
    weight: float | None


def build_datasets(config: Config, tokenizer: Tokenizer) -> Datasets:
    """Open what `--data-path` names and split it by `--split`.

    Documents are split by position, as in Megatron: the first share is for training, the next for
    validation, the last for test.

    Raises:
        UserError: every dataset that is missing, damaged or made with another tokenizer, or a training split
            that holds less than one sample.
    """
    blend = parse_blend(config.data.data_path)
    split = parse_split(config.data.split)
    sources = _open(blend, tokenizer)
    notes: list[str] = []
    problems: list[str] = []
    samples = []
    for place, name in enumerate(SPLITS):
        missing = problems if name == "training" else notes
        samples.append(_samples(sources, split, place, config, tokenizer.vocab_size, missing) if split[place] else None)
    if problems:
        raise UserError(*problems)
    return Datasets(*samples, notes=tuple(notes), fingerprint=_fingerprint(sources, split, config))


def split_documents(num_documents: int, split: Sequence[float], place: int) -> slice:
    """The documents of one split, with Megatron's rounding of its bounds."""
    bounds = [round(sum(split[:end]) * float(num_documents)) for end in (place, place + 1)]
    return slice(bounds[0], min(bounds[1], num_documents))


def _open(blend: Sequence[tuple[float | None, str]], tokenizer: Tokenizer) -> list[_Source]:
    sources: list[_Source] = []
    problems: list[str] = []
    for weight, prefix in blend:
        try:
            dataset = IndexedDataset(prefix)
            check_dataset(dataset, tokenizer)
        except UserError as error:
            problems += error.problems
        else:
            sources.append(_Source(dataset, weight))
    if problems:
        raise UserError(*problems)
    return sources


def _samples(
    sources: Sequence[_Source],
    split: Sequence[float],
    place: int,
    config: Config,
    vocab_size: int,
    missing: list[str],
) -> EpochSamples | BlendedSamples | None:
    """Samples of one split; a dataset that is too small for one sample adds a sentence to `missing`."""
    needed = config.model.seq_length + 1
    found: list[EpochSamples] = []
    weights: list[float] = []
    for source in sources:
        bounds = source.dataset.document_bounds
        documents = split_documents(len(bounds) - 1, split, place)
        tokens = int(bounds[documents.stop] - bounds[documents.start])
        if tokens < needed:
            missing.append(
                f"{source.dataset.prefix}: its {SPLITS[place]} split (--split {config.data.split}) has "
                f"{tokens} tokens in {documents.stop - documents.start} documents, one sample needs "
                f"{needed}: change --split, shorten --seq-length or add documents"
            )
            continue
        samples = EpochSamples(source.dataset, documents, config.model.seq_length, config.training.seed, vocab_size)
        found.append(samples)
        weights.append(float(samples.samples_per_epoch) if source.weight is None else source.weight)
    if len(found) > 1:
        return BlendedSamples(found, weights)
    return found[0] if found else None


def _fingerprint(sources: Sequence[_Source], split: Sequence[float], config: Config) -> str:
    parts: list[object] = [list(split), config.model.seq_length, config.training.seed]
    for source in sources:
        dataset = source.dataset
        ends = hashlib.sha256(dataset.tokens(0, FINGERPRINT_SPAN_TOKENS).tobytes())
        last = max(0, dataset.num_tokens - FINGERPRINT_SPAN_TOKENS)
        ends.update(dataset.tokens(last, FINGERPRINT_SPAN_TOKENS).tobytes())
        parts.append([source.weight, dataset.index_sha256, ends.hexdigest()])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
