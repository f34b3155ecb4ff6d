"""Which classes the layers are made of: torch's own, or Transformer Engine's where it is installed."""

from __future__ import annotations

import torch
from megatron.core.models.backends import BackendSpecProvider, LocalSpecProvider
from megatron.core.transformer.transformer_config import TransformerConfig

from contextlm.errors import UserError
from contextlm.model import transformer_engine
from contextlm.model.attention import ScaledDotProductAttention
from contextlm.model.fp8 import Fp8ColumnLinear, Fp8RowLinear
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
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


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


class Fp8SpecProvider(TorchSpecProvider):
    """The same, with linear layers that multiply numbers of 8 bits."""

    def column_parallel_linear(self) -> type:
        """The class of a linear layer whose outputs are shared out."""
        return Fp8ColumnLinear

    def row_parallel_linear(self) -> type:
        """The class of a linear layer whose inputs are shared out."""
        return Fp8RowLinear


def choose_backend(transformer_impl: str, half_precision: bool, fp8: bool = False) -> BackendSpecProvider:
    """The provider that `--transformer-impl` names; with `fp8`, torch's for 8 bits, as no other has ours.

    `auto` takes Transformer Engine where it fits, for 16 bits only: its fp32 products are TF32's. Who names it gets it,
    also in a release that megatron-core does not ask for.

    Raises:
        UserError: it is named, and cannot run here.
    """
    if fp8:
        return Fp8SpecProvider()
    if transformer_impl == "auto":
        fits = half_precision and transformer_engine.misfit() is None
        transformer_impl = "transformer_engine" if fits else "torch"
    if transformer_impl == "transformer_engine":
        if (reason := transformer_engine.unusable()) is not None:
            raise UserError(
                f"--transformer-impl transformer_engine: Transformer Engine {reason}; use --transformer-impl auto"
            )
        from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

        return TESpecProvider()
    return TorchSpecProvider()
