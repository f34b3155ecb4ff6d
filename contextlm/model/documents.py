"""Where documents begin in a micro-batch: an argument of every layer, on every pipeline stage.

A document ends with its end-of-document token (EOD), as in Megatron-LM: EOD sees the text before it, and the token
after it is the first of the next document. What a sample begins with is a document, too, even if its own beginning is
in another sample.

Shapes: B samples, S tokens of each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Documents:
    """The documents of a micro-batch.

    megatron-core's layers hand it on as their `packed_seq_params`, and ask it what they ask those: `qkv_format`, that
    the samples are not laid end to end; `max_seqlen_q` and `max_seqlen_kv`; `cp_group`, that no ranks share a sample.

    Attributes:
        positions_BS: position of each token within its document.
        isolated: whether attention stops at the beginning of a document.
        bounds: what `bounds_of` says of them, for kernels that want it; without it there is the mask.
    """

    positions_BS: Tensor
    isolated: bool
    bounds: Tensor | None = None
    qkv_format: ClassVar[str] = "sbhd"
    cp_group: ClassVar[None] = None

    @classmethod
    def of(cls, tokens_BS: Tensor, eod: int, isolated: bool, bounds: Tensor | None = None) -> Documents:
        """The documents of tokens."""
        at = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
        firsts_BS = torch.where(_begins(tokens_BS, eod), at, 0).cummax(dim=1).values
        return cls(at - firsts_BS, isolated, bounds)

    @property
    def max_seqlen_q(self) -> int:
        """S."""
        return self.positions_BS.shape[1]

    max_seqlen_kv = max_seqlen_q

    @functools.cached_property
    def mask_B1SS(self) -> Tensor:
        """True where a query (next to last dimension) sees a key: none after it, and none of another document."""
        at = torch.arange(self.positions_BS.shape[1], device=self.positions_BS.device)
        firsts_BS = at - self.positions_BS
        return ((at <= at[:, None]) & (at >= firsts_BS[:, :, None]))[:, None]


def _begins(tokens_BS: Tensor, eod: int) -> Tensor:
    """Whether a document begins with each token, [B, S]."""
    begins_BS = torch.ones_like(tokens_BS, dtype=torch.bool)
    begins_BS[:, 1:] = tokens_BS[:, :-1] == eod
    return begins_BS


def bounds_of(tokens_BS: Tensor, eod: int) -> Tensor:
    """The first token of each document of the samples laid end to end, then B S; int32 [documents + 1].

    Of tokens on the host: a GPU would have to be waited for, to know how many they are.
    """
    firsts = _begins(tokens_BS, eod).flatten().nonzero().flatten()
    return torch.cat((firsts, firsts.new_tensor([tokens_BS.numel()]))).int()
