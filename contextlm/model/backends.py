"""Which classes the layers are made of: torch's own, or Transformer Engine's where it is installed."""

from __future__ import annotations

import importlib
import importlib.util

import torch
from megatron.core.models.backends import BackendSpecProvider, LocalSpecProvider
from megatron.core.transformer.transformer_config import TransformerConfig

from contextlm.model.attention import ScaledDotProductAttention
from contextlm.model.linear import ColumnLinear, RowLinear


class LayerNorm(torch.nn.LayerNorm):
    """torch's LayerNorm under megatron-core's constructor.

    Under sequence parallelism each tensor-parallel rank sees its own tokens only; the mark on the parameters
    has megatron-core sum their gradients over those ranks.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5) -> None:
        device = None if config.use_cpu_initialization else torch.cuda.current_device()
        super().__init__(hidden_size, eps=eps, device=device, dtype=config.params_dtype)
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel


class TorchSpecProvider(LocalSpecProvider):
    """megatron-core's parallel linear layers, torch's attention kernels and LayerNorm."""

    def column_parallel_linear(self) -> type:
        """The class of a linear layer whose outputs are shared out."""
        return ColumnLinear

    def row_parallel_linear(self) -> type:
        """The class of a linear layer whose inputs are shared out."""
        return RowLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False) -> type:
        """The LayerNorm class."""
        assert not rms_norm, "GPT-2 and GPT-NeoX have LayerNorm"
        return LayerNorm

    def core_attention(self) -> type:
        """The attention kernel's class."""
        return ScaledDotProductAttention


def choose_backend(transformer_impl: str, half_precision: bool) -> BackendSpecProvider:
    """The provider that `--transformer-impl` names.

    `auto` takes Transformer Engine where it and CUDA are, for 16 bits only: its fp32 products are TF32's.
    """
    if transformer_impl == "auto":
        transformer_impl = "transformer_engine" if half_precision and _has_engine() else "torch"
    if transformer_impl == "transformer_engine":
        from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

        return TESpecProvider()
    return TorchSpecProvider()


def _has_engine() -> bool:
    """Whether Transformer Engine is there and works with this torch."""
    if not torch.cuda.is_available() or importlib.util.find_spec("transformer_engine") is None:
        return False
    try:
        importlib.import_module("transformer_engine.pytorch")
    except (ImportError, OSError):  # built for another torch or CUDA
        return False
    return True
