"""Weights for proofs: all random and non-zero, the gate open, the norms' gains and biases perturbed.

On fresh weights the gate is 0 and the head invisible, so that a proof would prove nothing.
"""

from __future__ import annotations

import torch

GATE = 0.7


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Set every parameter of a whole (unsplit) model; the same names get the same values."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("gate"):
            value = GATE + 0.1 * noise
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.2 * noise
        elif parameter.dim() == 1:
            value = 0.1 * noise
        elif "embeddings" in name:
            value = 0.5 * noise
        else:
            # About the scale that keeps the residual stream's variance: every part then matters.
            value = noise * parameter.shape[-1] ** -0.5
        with torch.no_grad():
            parameter.copy_(value)
