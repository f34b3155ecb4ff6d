"""Which of torch's attention kernels is the fastest at a model's shape, and which one torch takes by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from contextlm.config.schema import Config
from contextlm.model.attention import kernel_name
from gpu_clock import window
from table import table

_BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
_WARM_UP, _REPEATS = 3, 20


def attention_seconds(config: Config, device: torch.device) -> dict[str, float]:
    """Forward and backward of one layer's causal attention in bf16, by kernel; without those that there are not."""
    model = config.model
    dimension = model.hidden_size // model.num_attention_heads
    shape = (model.seq_length, config.training.micro_batch_size, model.num_attention_heads, 3, dimension)
    heads = torch.randn(shape, device=device, dtype=torch.bfloat16)
    # In memory as a layer has them: token by token, the three of a head side by side.
    query, key, value = (x.permute(1, 2, 0, 3).requires_grad_() for x in heads.unbind(3))

    def once() -> None:
        output = scaled_dot_product_attention(query, key, value, is_causal=True)
        torch.autograd.grad(output, (query, key, value), output)

    found = {}
    for name, backend in _BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                window(once, 0.0, _WARM_UP)
                found[name] = 1 / window(once, 0.0, _REPEATS)
        except RuntimeError:  # this build, device or shape has none
            continue
    return found


def taken(config: Config, device: torch.device) -> str:
    """The kernel that torch takes by itself."""
    model = config.model
    dimension = model.hidden_size // model.num_attention_heads
    return kernel_name(model.num_attention_heads, dimension, model.seq_length, device, torch.bfloat16)


def shown(seconds: Mapping[str, float], chosen: str) -> str:
    """A table, the fastest first."""
    ranked = sorted(seconds.items(), key=lambda entry: entry[1])
    rows = [
        (name, f"{1000 * value:.3f}", f"{value / ranked[0][1]:.2f}", "torch's choice" if name == chosen else "")
        for name, value in ranked
    ]
    return table(("attention of a layer", "ms", "of the fastest", ""), rows)
