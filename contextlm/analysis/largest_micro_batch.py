"""The largest micro-batch that a GPU's memory takes, with one micro-batch an iteration."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from contextlm.analysis.fitting import usable
from contextlm.analysis.memory import fullest
from contextlm.analysis.recompute_choices import with_choice
from contextlm.config.schema import Config

COMPARED = ("nothing", "every layer")
"""What may be computed again, of `recompute_choices.CHOICES`."""


class Largest(NamedTuple):
    """Samples of the largest micro-batch by what is computed again, as COMPARED; 0 where not even one fits."""

    name: str
    samples: tuple[int, ...]


def largest(config: Config, world_size: int, memory_bytes: float) -> Largest:
    """Of a preset, on GPUs of so much memory; batch and recomputation that the configuration has are set aside."""
    assert config.model.vocab_size is not None
    limit, vocab_size = usable(memory_bytes), config.model.vocab_size

    def fits(choice: Config, samples: int) -> bool:
        training = dataclasses.replace(choice.training, micro_batch_size=samples, global_batch_size=None)
        return fullest(dataclasses.replace(choice, training=training), vocab_size, world_size).total <= limit

    def most(choice: Config) -> int:
        fitting, beyond = 0, 1
        while fits(choice, beyond):
            fitting, beyond = beyond, 2 * beyond
        while beyond - fitting > 1:
            middle = (fitting + beyond) // 2
            fitting, beyond = (middle, beyond) if fits(choice, middle) else (fitting, middle)
        return fitting

    return Largest(config.preset or "", tuple(most(with_choice(config, choice)) for choice in COMPARED))
