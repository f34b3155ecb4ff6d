"""The peer for Pythia: a GPT-NeoX in plain PyTorch, beside `plain_gpt.py`'s GPT-2.

Attention and MLP read the same states (parallel residual), a quarter of each head's dimensions is rotated, GELU is
the exact one, and the output matrix is not the embedding. Shapes as there; R rotated dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plain_gpt import Block

ROTATED = 0.25


class NeoXBlock(Block):
    """x + attention(norm1(x)) + mlp(norm2(x))."""

    def forward(self, x_BSH: Tensor, cos_SR: Tensor, sin_SR: Tensor) -> Tensor:  # type: ignore[override]
        """Token states in and out, [B, S, H]."""
        q_BNSD, k_BNSD, v_BNSD = self.by_head(x_BSH)
        q_BNSD, k_BNSD = (_rotated(t_BNSD, cos_SR, sin_SR) for t_BNSD in (q_BNSD, k_BNSD))
        attended_BNSD = F.scaled_dot_product_attention(q_BNSD, k_BNSD, v_BNSD, is_causal=True)
        mlp_BSH = self.apart(F.gelu(self.up(self.norm2(x_BSH))), self.down)
        return x_BSH + self.apart(attended_BNSD.transpose(1, 2).flatten(2), self.projection) + mlp_BSH


class PlainNeoX(nn.Module):
    """GPT-NeoX; `vocabulary` is the number of rows, padding included."""

    cos_SR: Tensor
    sin_SR: Tensor

    def __init__(self, layers: int, hidden: int, heads: int, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.output = nn.Embedding(vocabulary, hidden), nn.Linear(hidden, vocabulary, bias=False)
        self.blocks = nn.ModuleList(NeoXBlock(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        angles_SR = _angles(length, int(ROTATED * (hidden // heads)))
        self.register_buffer("cos_SR", angles_SR.cos(), persistent=False)
        self.register_buffer("sin_SR", angles_SR.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("projection.weight", "down.weight"))
                std = 2 / (layers * math.sqrt(hidden)) if residual else math.sqrt(2 / (5 * hidden))
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def logits(self, inputs_BS: Tensor) -> Tensor:
        """Of every token, [B, S, V]."""
        x_BSH, length = self.tokens(inputs_BS), inputs_BS.shape[1]
        for block in self.blocks:
            x_BSH = block(x_BSH, self.cos_SR[:length], self.sin_SR[:length])
        return self.output(self.norm(x_BSH))

    def forward(self, inputs_BS: Tensor, labels_BS: Tensor) -> Tensor:
        """The mean loss."""
        return F.cross_entropy(self.logits(inputs_BS).flatten(0, 1), labels_BS.flatten())


def _angles(length: int, rotated: int) -> Tensor:
    """The angle of each position and dimension, fp32 [S, R]: the second half turns as the first does."""
    rates = 10000.0 ** (-torch.arange(0, rotated, 2) / rotated)
    return torch.outer(torch.arange(length).float(), rates).repeat(1, 2)


def _rotated(t_BNSD: Tensor, cos_SR: Tensor, sin_SR: Tensor) -> Tensor:
    """Queries or keys, their first R dimensions rotated by the positions."""
    turned, rest = t_BNSD.split((cos_SR.shape[1], t_BNSD.shape[3] - cos_SR.shape[1]), dim=3)
    first, second = turned.chunk(2, dim=3)
    return torch.cat((turned * cos_SR + torch.cat((-second, first), dim=3) * sin_SR, rest), dim=3)
