"""The peers as a trainer for one CPU process in fp32; on a GPU `gpu_peer.py` trains them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from contextlm.config.schema import Config
from plain_gpt import PlainGPT
from plain_neox import PlainNeoX


def plain_model(config: Config, vocab_size: int) -> PlainGPT | PlainNeoX:
    """The peer of a plain configuration of the GPT-2 or the Pythia family."""
    model = config.model
    family = PlainNeoX if model.parallel_residual else PlainGPT
    sizes = (model.num_layers, model.hidden_size, model.num_attention_heads, model.seq_length)
    return family(*sizes, model.padded_vocab_size(vocab_size, 1))


class PlainTrainer:
    """One iteration after the other: accumulate, clip, AdamW, with the settings of `config`."""

    def __init__(self, config: Config, vocab_size: int) -> None:
        settings = config.optimizer
        self.model = plain_model(config, vocab_size)
        self.clip = settings.clip_grad
        matrices = [parameter for parameter in self.model.parameters() if parameter.dim() == 2]
        vectors = [parameter for parameter in self.model.parameters() if parameter.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings.lr,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_eps,
            fused=True,
        )

    def step(self, batches: Iterable[Tensor], num_microbatches: int) -> Tensor:
        """One iteration over micro-batches [B, S + 1]; returns its mean loss."""
        total = torch.zeros(())
        self.optimizer.zero_grad()
        for tokens in batches:
            loss = self.model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()) / num_microbatches
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=True)
        self.optimizer.step()
        return total
