"""A run without files: random tokens, a vocabulary of 515, any layout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contextlm.config.schema import Config
from contextlm.data.datasets import Datasets, build_datasets
from contextlm.data.tokenizers import build_tokenizer
from contextlm.parallel import runtime
from contextlm.parallel.layout import model_parallel
from tests.small_configs import VOCAB_SIZE, small_config

EOD = 7
END_EVERY = 9  # tokens, on average


class RandomSamples:
    """Sample n is random, and the same for every layout; as many documents end in it as are worth an option."""

    samples_per_epoch = 1000

    def __init__(self, seq_length: int, with_ends: bool = False) -> None:
        self.seq_length, self.with_ends = seq_length, with_ends

    def sample(self, n: int) -> np.ndarray:
        """Token ids, int64 [seq_length + 1]."""
        draw = np.random.default_rng(n)
        tokens = draw.integers(0, VOCAB_SIZE, self.seq_length + 1)
        if self.with_ends:
            tokens[draw.integers(0, END_EVERY, len(tokens)) == 0] = EOD
        return tokens

    def parts(self, n: int) -> list[Any]:
        """They come from no dataset."""
        return []


class NoTokenizer:
    """What a run asks a tokenizer for."""

    eod = EOD
    fingerprint = "none"

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def decode(self, ids: list[int]) -> str:
        """The numbers."""
        return " ".join(map(str, ids))

    def token_byte_lengths(self) -> None:
        """Not known."""

    def save(self, folder: Path) -> None:
        """Nothing to save."""


@contextlib.contextmanager
def small_run(backbone: str, **values: Any) -> Iterator[Any]:
    """A run of `small_config`, in the process group that the environment describes.

    Its samples are random tokens below VOCAB_SIZE, whatever `vocab_size` there is in `values`, or those of a dataset
    where `data_path` and `tokenizer_type` are given.
    """
    config = small_config(backbone, **values)
    tokenizer, data = _random_data(config) if not config.data.data_path else _real_data(config)
    with runtime.start(config.parallel) as process, model_parallel(config.parallel) as layout:
        from megatron.core.utils import get_model_config

        from contextlm.training.setup import setup

        run = setup(config, process, layout, tokenizer, data)
        try:
            yield run
        finally:
            # Through the loss scale the layers' configuration holds the optimizer, and so the process groups, for good:
            # no collector sees that cycle, and each run would leave its threads behind.
            get_model_config(run.model[0]).grad_scale_func = None


def load_weights(run: Any, folder: str) -> None:
    """Take the weights of the checkpoint in a folder, which must be there."""
    from contextlm.checkpoints import checkpoint_folder, loading

    found = checkpoint_folder.find(Path(folder))
    assert found is not None
    loading.load_weights(run, found)


def _random_data(config: Config) -> tuple[Any, Any]:
    data = config.data
    with_ends = data.reset_position_ids or data.reset_attention_mask or data.eod_mask_loss
    samples = RandomSamples(config.model.seq_length, with_ends)
    return NoTokenizer(config.model.vocab_size or VOCAB_SIZE), Datasets(
        samples, samples, None, notes=(), fingerprint="random"
    )


def _real_data(config: Config) -> tuple[Any, Any]:
    tokenizer = build_tokenizer(config.data)
    return tokenizer, build_datasets(config, tokenizer)
