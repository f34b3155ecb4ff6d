"""Which option gives the documents of training, validation and test.

Either `--data-path`, whose documents `--split` shares out, or `--train-data-path`, `--valid-data-path` and
`--test-data-path`, whose datasets are taken whole. Used by the checks and by `data/datasets.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.config.blend import parse_split
from contextlm.config.schema import DataConfig

SPLITS = ("training", "validation", "test")


class SplitData(NamedTuple):
    """Where one split comes from.

    Attributes:
        flag: the option.
        words: what it was given.
        shares: of the documents of each dataset that go to each place; their sum is 1.
        place: which of the shares is this split's.
    """

    flag: str
    words: tuple[str, ...]
    shares: tuple[float, ...]
    place: int


def split_data(data: DataConfig) -> dict[str, SplitData]:
    """The splits that there are data for, by name.

    Raises:
        UserError: `--split` cannot be read.
    """
    if not data.per_split:
        shares = parse_split(data.document_split)
        return {
            name: SplitData("--data-path", data.data_path, shares, place)
            for place, name in enumerate(SPLITS)
            if shares[place]
        }
    return {
        name: SplitData(flag, words, (1.0,), 0)
        for name, (flag, words) in zip(SPLITS, own_paths(data), strict=True)
        if words
    }


def own_paths(data: DataConfig) -> list[tuple[str, tuple[str, ...]]]:
    """The options that give one split each its own datasets, and what they were given."""
    return [
        ("--train-data-path", data.train_data_path),
        ("--valid-data-path", data.valid_data_path),
        ("--test-data-path", data.test_data_path),
    ]
