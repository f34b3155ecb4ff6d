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
from contextlm.data.dataset_checks import check_dataset
from contextlm.data.indexed import IndexedDataset
from contextlm.data.samples import EpochSamples
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


@dataclass(frozen=True)
class _Source:
    dataset: IndexedDataset
    weight: float | None


def build_datasets(config: Config, tokenizer: Tokenizer) -> Datasets:
    """Open what `--data-path` names and split it by `--split`, or take each split from its own path.

    Documents are split by position, as in Megatron: the first share is for training, the next for
    validation, the last for test.

    Raises:
        UserError: every dataset that is missing, damaged or made with another tokenizer, or a training split
            that holds less than one sample.
    """
    splits = split_data(config.data)
    opened = _open({split.flag: split.words for split in splits.values()}, tokenizer)
    notes: list[str] = []
    problems: list[str] = []
    found: dict[str, dict[_Source, EpochSamples]] = {}
    for name, split in splits.items():
        missing = problems if name == "training" else notes
        found[name] = _samples(opened[split.flag], name, split, config, tokenizer.vocab_size, missing)
    if problems:
        raise UserError(*problems)
    train, validation, test = (_blended(found.get(name, {})) for name in SPLITS)
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
        validation_sets=_named(found.get("validation", {})) if config.training.multiple_validation_sets else {},
    )


def split_documents(num_documents: int, split: Sequence[float], place: int) -> slice:
    """The documents of one split, with Megatron's rounding of its bounds."""
    bounds = [round(sum(split[:end]) * float(num_documents)) for end in (place, place + 1)]
    return slice(bounds[0], min(bounds[1], num_documents))


def _open(blends: Mapping[str, Sequence[str]], tokenizer: Tokenizer) -> dict[str, list[_Source]]:
    """The datasets of each option, checked."""
    opened: dict[str, list[_Source]] = {flag: [] for flag in blends}
    problems: list[str] = []
    for flag, words in blends.items():
        for weight, prefix in parse_blend(words, flag):
            try:
                dataset = IndexedDataset(prefix)
                check_dataset(dataset, tokenizer)
            except UserError as error:
                problems += [problem.replace("--data-path", flag, 1) for problem in error.problems]
            else:
                opened[flag].append(_Source(dataset, weight))
    if problems:
        raise UserError(*problems)
    return opened


def _samples(
    sources: Sequence[_Source],
    name: str,
    split: SplitData,
    config: Config,
    vocab_size: int,
    missing: list[str],
) -> dict[_Source, EpochSamples]:
    """Samples of each dataset of a split; one that is too small for one sample adds a sentence to `missing`."""
    needed = config.model.seq_length + 1
    found: dict[_Source, EpochSamples] = {}
    for source in sources:
        bounds = source.dataset.document_bounds
        documents = split_documents(len(bounds) - 1, split.shares, split.place)
        tokens = int(bounds[documents.stop] - bounds[documents.start])
        if tokens < needed:
            shared = len(split.shares) > 1
            origin = f"--split {config.data.document_split}" if shared else split.flag
            missing.append(
                f"{source.dataset.prefix}: its {name} split ({origin}) has {tokens} tokens in "
                f"{documents.stop - documents.start} documents, one sample needs {needed}: "
                f"{'change --split, ' if shared else ''}shorten --seq-length or add documents"
            )
            continue
        found[source] = EpochSamples(
            source.dataset, documents, config.model.seq_length, config.training.seed, vocab_size
        )
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
