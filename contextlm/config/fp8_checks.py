"""Checks of products in 8 bits."""

from __future__ import annotations

from contextlm.config.schema import Config

MULTIPLE = 16
"""What the sizes of the products are multiples of."""


def fp8_problems(config: Config) -> list[str]:
    """What speaks against `--fp8-format`."""
    training, model, ranks = config.training, config.model, config.parallel.tensor_model_parallel_size
    if training.fp8_format is None:
        return []
    flag = f"--fp8-format {training.fp8_format}"
    reasons = {
        "rounds what --bf16 has; add that": not training.bf16,
        "Megatron-LM's own --fp8-recipe, delayed, is not offered; add --fp8-recipe tensorwise": (
            training.fp8_recipe is None
        ),
        f"--tensor-model-parallel-size {ranks} shares out matrices, and only whole ones are rounded; drop one of the "
        "two": ranks > 1,
        "--transformer-impl transformer_engine brings its own layers; drop one of the two": (
            model.transformer_impl == "transformer_engine"
        ),
        **{
            f"{name} {size} is no multiple of {MULTIPLE}; use {_rounded_up(size)}": size % MULTIPLE > 0
            for name, size in (("--hidden-size", model.hidden_size), ("--ffn-hidden-size", model.ffn_size))
        },
    }
    return [f"{flag}: {reason}" for reason, holds in reasons.items() if holds]


def _rounded_up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE
