"""From the configuration to the samples of training, validation and test.

Opens and checks every dataset of the blends (`indexed.py`, `dataset_checks.py`), splits its documents, and
finds out before training whether there is enough. What a sample is: `samples.py`; batches: `loader.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contextlm.config.blend import parse_blend
from contextlm.config.schema import Config
from contextlm.config.split_data import SPLITS, SplitData, split_data
from contextlm.data.blended_samples import BlendedSamples
from contextlm.data.boundary_checks import boundary_problems
from contextlm.data.dataset_checks import check_dataset
from contextlm.data.enough_data import is_needed, less_than_a_pass, less_than_a_sample
from contextlm.data.index_cache import IndexCache
from contextlm.data.indexed import IndexedDataset
from contextlm.data.samples import EpochSamples, Samples
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError

FINGERPRINT_SPAN_TOKENS = 1 << 19


@dataclass(frozen=True)
class Datasets:
    """The samples of a run.

    Attributes:
        train, validation, test: samples, or None where the split holds none.
        notes: one sentence for each thing that was left out.
        fingerprint: sha256 of the data, the blend, the split, the sample length and the seed; equal for equal
            training samples. Of each dataset it covers the index and both ends of the tokens, not their paths.
        evaluation_fingerprint: the same of validation and test data, where they are datasets of their own.
        validation_sets: with `--multiple-validation-sets` the samples of each dataset, by its name.
    """

    train: EpochSamples | BlendedSamples | None
    validation: EpochSamples | BlendedSamples | None
    test: EpochSamples | BlendedSamples | None
    notes: tuple[str, ...]
    fingerprint: str
    evaluation_fingerprint: str | None = None
    validation_sets: Mapping[str, EpochSamples] = field(default_factory=dict)

    def prepare(self, training: range) -> None:
        """Build what the index caches lack for these training samples, and for evaluation."""
        if self.train is not None and training:
            self.train.prepare(training.start, training.stop)
        for samples in (self.validation, self.test):
            if samples is not None:
                samples.prepare(0, 1)


@dataclass(frozen=True)
class _Source:
    dataset: IndexedDataset
    weight: float | None
    cache: IndexCache


def build_datasets(config: Config, tokenizer: Tokenizer | None, world_size: int | None = None) -> Datasets:
    """Open what `--data-path` names and split it by `--split`, or take each split from its own path.

    Documents are split by position, as in Megatron: the first share is for training, the next for
    validation, the last for test.

    Args:
        tokenizer: of the run; without one nothing about the ids is checked.
        world_size: processes of the run, if it is to evaluate.

    Raises:
        UserError: every dataset that is missing, damaged or made with another tokenizer, or every one that has less
            for training, or for an evaluation that was asked for, than that needs; data
            without ends of documents, where an option is about them.
    """
    splits = split_data(config.data)
    opened = _open({split.flag: split.words for split in splits.values()}, tokenizer, config.data.data_cache_path)
    notes: list[str] = []
    every = {source.dataset.prefix: source.dataset for sources in opened.values() for source in sources}
    problems = boundary_problems(config.data, tokenizer, every.values())
    found: dict[str, dict[_Source, EpochSamples]] = {}
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    for name, split in splits.items():
        missing = problems if is_needed(name, config) else notes
        found[name] = _samples(opened[split.flag], name, split, config, vocab_size, missing)
    train, validation, test = (_blended(found.get(name, {})) for name in SPLITS)
    several = _named(found.get("validation", {})) if config.training.multiple_validation_sets else {}
    if world_size is not None:
        sets: dict[str, Mapping[str, Samples | None]]
        sets = {"validation": several or {"validation": validation}, "test": {"test": test}}
        problems += less_than_a_pass(config, splits, sets, world_size)
    if problems:
        raise UserError(*problems)
    own = config.data.per_split
    evaluated = {name: opened[split.flag] for name, split in splits.items() if own and name != "training"}
    return Datasets(
        train,
        validation,
        test,
        notes=tuple(notes),
        fingerprint=_fingerprint(opened.get("--train-data-path" if own else "--data-path", ()), config),
        evaluation_fingerprint=_digest([(name, *map(_facts, sources)) for name, sources in evaluated.items()])
        if evaluated
        else None,
        validation_sets=several,
    )


def split_documents(num_documents: int, split: Sequence[float], place: int) -> slice:
    """The documents of one split, with Megatron's rounding of its bounds."""
    bounds = [round(sum(split[:end]) * float(num_documents)) for end in (place, place + 1)]
    return slice(bounds[0], min(bounds[1], num_documents))


def _open(
    blends: Mapping[str, Sequence[str]], tokenizer: Tokenizer | None, cache_folder: str | None
) -> dict[str, list[_Source]]:
    """The datasets of each option, checked."""
    opened: dict[str, list[_Source]] = {flag: [] for flag in blends}
    problems: list[str] = []
    for flag, words in blends.items():
        for weight, prefix in parse_blend(words, flag):
            try:
                cache = IndexCache.of(prefix, cache_folder)
                dataset = IndexedDataset(prefix, cache)
                if tokenizer is not None:
                    check_dataset(dataset, tokenizer)
            except UserError as error:
                problems += [problem.replace("--data-path", flag, 1) for problem in error.problems]
            else:
                opened[flag].append(_Source(dataset, weight, cache))
    if problems:
        raise UserError(*problems)
    return opened


def _samples(
    sources: Sequence[_Source],
    name: str,
    split: SplitData,
    config: Config,
    vocab_size: int | None,
    missing: list[str],
) -> dict[_Source, EpochSamples]:
    """Samples of each dataset of a split; one that is too small for one sample adds a sentence to `missing`."""
    found: dict[_Source, EpochSamples] = {}
    length, seed = config.model.seq_length, config.training.seed
    for source in sources:
        dataset, bounds = source.dataset, source.dataset.document_bounds
        documents = split_documents(len(bounds) - 1, split.shares, split.place)
        tokens = int(bounds[documents.stop] - bounds[documents.start])
        if tokens > length:
            found[source] = EpochSamples(dataset, documents, length, seed, vocab_size, source.cache)
            continue
        count = documents.stop - documents.start
        missing.append(less_than_a_sample(dataset.prefix, name, split, config, count, tokens))
    return found


def _blended(found: Mapping[_Source, EpochSamples]) -> EpochSamples | BlendedSamples | None:
    """The datasets of a split by weight, or by size where they have none."""
    samples = list(found.values())
    if len(samples) < 2:
        return samples[0] if samples else None
    weights = [
        float(each.samples_per_epoch) if source.weight is None else source.weight for source, each in found.items()
    ]
    return BlendedSamples(samples, weights)


def _named(found: Mapping[_Source, EpochSamples]) -> dict[str, EpochSamples]:
    """Datasets by the last part of their prefix, or by all of it where that is not enough to tell them apart."""
    prefixes = [source.dataset.prefix for source in found]
    short = [Path(prefix).name for prefix in prefixes]
    names = short if len(set(short)) == len(short) else prefixes
    return dict(zip(names, found.values(), strict=True))


def _fingerprint(sources: Sequence[_Source], config: Config) -> str:
    shares = next(iter(split_data(config.data).values())).shares
    return _digest([list(shares), config.model.seq_length, config.training.seed, *map(_facts, sources)])


def _facts(source: _Source) -> list[object]:
    """What tells one dataset of a blend from another."""
    dataset = source.dataset
    ends = hashlib.sha256(dataset.tokens(0, FINGERPRINT_SPAN_TOKENS).tobytes())
    last = max(0, dataset.num_tokens - FINGERPRINT_SPAN_TOKENS)
    ends.update(dataset.tokens(last, FINGERPRINT_SPAN_TOKENS).tobytes())
    return [source.weight, dataset.index_sha256, ends.hexdigest()]


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
