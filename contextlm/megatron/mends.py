"""The list of mends that every run applies, on any device."""

from __future__ import annotations

from contextlm.megatron import (
    adamw,
    checkpoint_writer,
    first_gradient,
    gelu,
    grad_norm,
    logits_max,
    lone_replica,
    recompute_bias,
    recompute_uniform,
    safe_loading,
    tensor_group,
    token_scale,
    viewless,
)


def apply() -> None:
    """Apply them all, once per process, before any megatron-core object is built."""
    for mend in (
        tensor_group,
        adamw,
        grad_norm,
        token_scale,
        first_gradient,
        gelu,
        lone_replica,
        logits_max,
        recompute_bias,
        recompute_uniform,
        checkpoint_writer,
        safe_loading,
        viewless,
    ):
        mend.install()
