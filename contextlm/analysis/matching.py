"""A model of equal budget: one of its sizes is varied until its parameters or its FLOPs per token are another model's.

Sizes are whole numbers, so a difference remains; it is part of the answer. Read next: `parameters.py`, `flops.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.parameters import count_parameters
from contextlm.config.schema import Config
from contextlm.config.validation import validate
from contextlm.errors import UserError

# What may be equal: name -> its amount, a function of configuration and vocabulary.
BUDGETS: dict[str, Callable[[Config, int], float]] = {
    "params": lambda config, vocab_size: count_parameters(config, vocab_size).total,
    "flops": training_flops_per_token,
}
# What may be varied: name -> field of the model. The last one is the finest.
SIZES = {"depth": "num_layers", "width": "hidden_size", "mlp": "ffn_hidden_size"}
_TRIES = 64  # values on each side of the nearest one; layouts and heads forbid some


class Match(NamedTuple):
    """The configuration that comes nearest.

    Attributes:
        config: the varied configuration.
        field: name of the size that was varied.
        value: what it is now.
        wanted: the target's budget (parameters, or training FLOPs per token).
        reached: the budget of `config`.
    """

    config: Config
    field: str
    value: int
    wanted: float
    reached: float

    @property
    def residual(self) -> float:
        """What remains, relative to the target: 0.01 is 1% above it."""
        return self.reached / self.wanted - 1


def match(config: Config, target: Config, budget: str, size: str, vocab_size: int) -> Match:
    """Vary one size of `config` until its budget is as near to the target's as a valid value allows.

    Args:
        config: the model to be varied, usually a plain one.
        target: the model whose budget is wanted, usually one with a context head.
        budget: a key of BUDGETS.
        size: a key of SIZES. The width goes in steps of the number of heads; the MLP's follows it, unless given.
        vocab_size: rows of the embedding, unpadded.

    Raises:
        UserError: no value near the target's budget gives a valid configuration.
    """
    field, amount = SIZES[size], BUDGETS[budget]
    wanted = amount(target, vocab_size)
    step = config.model.num_attention_heads if field == "hidden_size" else 1

    def varied(steps: int) -> Config:
        change: dict[str, Any] = {field: steps * step}
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **change))

    def distance(steps: int) -> float:
        return abs(amount(varied(steps), vocab_size) - wanted)

    above = _first(lambda steps: amount(varied(steps), vocab_size) >= wanted)
    candidates = sorted(range(max(1, above - _TRIES), above + _TRIES), key=distance)
    steps = next((steps for steps in candidates if not validate(varied(steps), None, dry_run=True)), None)
    if steps is None:
        flag = "--" + field.replace("_", "-")
        raise UserError(f"{flag}: no valid value near {above * step} gives equal {budget}; vary another size")
    found = varied(steps)
    return Match(found, field, steps * step, wanted, amount(found, vocab_size))


def _first(is_enough: Callable[[int], bool]) -> int:
    """The least number from 1 on for which `is_enough`, which stays true once it is, holds."""
    high = next(2**power for power in itertools.count() if is_enough(2**power))
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
