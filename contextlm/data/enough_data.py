"""Is there enough data? Asked before training, with what is needed and what is there.

Training data must hold one sample, and are read again where the run is longer: the table at the start shows how often.
An evaluation reads at most one pass. A split that `--split` leaves nothing for is not evaluated, with a note that says
so; where it was asked for it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from contextlm.config.schema import Config
from contextlm.config.split_data import SplitData
from contextlm.data.samples import Samples


def is_needed(name: str, config: Config) -> bool:
    """Whether a run cannot do without the split: what it trains on, and what somebody asked to evaluate on."""
    training = config.training
    if name == "training":
        return not training.skip_train
    if name == "validation" and training.full_validation:
        return True
    return config.data.per_split and training.eval_iters > 0


def less_than_a_sample(
    prefix: str, name: str, split: SplitData, config: Config, num_documents: int, num_tokens: int
) -> str:
    """What to say of a dataset of which a split gets less than one sample."""
    shared = len(split.shares) > 1
    origin = f"--split {config.data.document_split}" if shared else split.flag
    return (
        f"{prefix}: its {name} split ({origin}) has {num_tokens} tokens in {num_documents} documents, one sample needs "
        f"{config.model.seq_length + 1}: {'change --split, ' if shared else ''}shorten --seq-length or add documents"
    )


def less_than_a_pass(
    config: Config, splits: Mapping[str, SplitData], sets: Mapping[str, Mapping[str, Samples | None]], world_size: int
) -> list[str]:
    """Of each evaluation that was asked for and is shorter than a micro-batch of every data-parallel rank.

    Args:
        splits: where each split comes from, by name.
        sets: of each split, what is evaluated by itself, by name.
    """
    ranks, length = config.data_parallel_size(world_size), config.model.seq_length
    needed = config.training.micro_batch_size * ranks
    return [
        f"{splits[split].flag}: one pass of {name} has {samples.samples_per_epoch * length + 1:,} tokens, {needed} "
        f"samples of --seq-length {length} need {needed * length + 1:,}, one micro-batch for each of {ranks} "
        "data-parallel rank(s): add documents, or use a smaller --micro-batch-size or --seq-length"
        for split, named in sets.items()
        if is_needed(split, config)
        for name, samples in named.items()
        if samples is not None and samples.samples_per_epoch < needed
    ]
