"""The peer of `gpu.py`: plain PyTorch as fast as we can write it.

bf16 weights with fp32 masters, the whole model compiled as one graph with its loss, with the trainer's own mend of the
compiler (`model/whole_rows.py`), one-kernel AdamW that clips and writes the bf16 weights (the trainer's own kernel),
tokens that lie on the GPU. Gradients of several micro-batches are added up in fp32, by kernels of the compiler.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from contextlm.config.compile_unit import replays
from contextlm.config.schema import Config
from contextlm.megatron.kept_kernels import KeptKernels
from gpu_trainers import Step, vocab_size
from plain_trainer import plain_model

BATCHES = 8


@contextlib.contextmanager
def peer(config: Config, process: Any, *, our_loss: bool = False) -> Iterator[Step]:
    """One iteration of the peer of a plain configuration.

    Args:
        our_loss: the loss by our kernels behind the graph, instead of the compiler's inside it.
    """
    gpt = plain_model(config, vocab_size(config)).to(process.device, torch.bfloat16)
    from contextlm.model.whole_rows import read_rows_once  # takes the compiler along

    read_rows_once()
    # Where ours has its kernels launched together, so does the peer.
    mode = "reduce-overhead" if replays(config, 1, on_cuda=True) else None
    compiled = torch.compile(gpt.logits if our_loss else gpt, fullgraph=True, dynamic=False, mode=mode)
    forward = _with_our_loss(compiled) if our_loss else compiled
    num_microbatches = config.num_microbatches(1)
    update = _Update(gpt, config.optimizer, adds_up=num_microbatches > 1)
    shape = (BATCHES, config.training.micro_batch_size, config.model.seq_length + 1)
    tokens = torch.randint(0, vocab_size(config), shape, device=process.device)
    inputs, labels = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
    numbers = itertools.cycle(range(BATCHES))

    def step() -> Tensor:
        losses = []
        for n in range(num_microbatches):
            batch = next(numbers)
            loss = forward(inputs[batch], labels[batch])
            (loss / num_microbatches if num_microbatches > 1 else loss).backward()
            if num_microbatches > 1:
                update.add(is_first=n == 0)
            losses.append(loss.detach().clone())  # a CUDA graph's output is gone after its next run
        update()
        return torch.stack(losses).mean()

    yield step


def _with_our_loss(logits: Any) -> Any:
    """The mean loss by our kernels."""
    from contextlm.megatron.fused_loss import token_losses  # Triton comes with CUDA

    def forward(inputs_BS: Tensor, labels_BS: Tensor) -> Tensor:
        logits_NV = logits(inputs_BS).flatten(0, 1)
        group = torch.distributed.group.WORLD
        assert group is not None
        return token_losses(logits_NV, labels_BS.flatten(), 0, logits_NV.shape[1], group).mean()

    return forward


class _Update:
    """Norm, clip and AdamW over bf16 gradients or fp32 sums of them, with fp32 master weights; no decay for vectors."""

    def __init__(self, gpt: nn.Module, settings: Any, *, adds_up: bool) -> None:
        from contextlm.megatron.adamw_kernel import AdamWKernel  # Triton comes with CUDA

        self.settings = settings
        parameters = list(gpt.parameters())
        self.groups = [
            ([p for p in parameters if p.dim() == 2], settings.weight_decay),
            ([p for p in parameters if p.dim() == 1], 0.0),
        ]
        self.masters = {p: p.detach().float() for p in parameters}
        self.tensors = {p: (m, torch.zeros_like(m), torch.zeros_like(m), p.detach()) for p, m in self.masters.items()}
        self.sums = {p: torch.zeros_like(m) for p, m in self.masters.items()} if adds_up else {}
        self.replace: Any = torch.compile(torch._foreach_copy_, dynamic=False)
        self.increase: Any = torch.compile(torch._foreach_add_, dynamic=False)
        self.step = torch.zeros(1, device=parameters[0].device)
        self.never = torch.zeros_like(self.step)
        self.kernels: KeptKernels[Any, Any] = KeptKernels(AdamWKernel, sets=len(self.groups))

    def add(self, *, is_first: bool) -> None:
        """Take the gradients of a micro-batch, the first one in place of the iteration before."""
        add = self.replace if is_first else self.increase
        add(list(self.sums.values()), [p.grad for p in self.sums if p.grad is not None])
        for p in self.sums:
            p.grad = None

    def __call__(self) -> None:
        from contextlm.megatron.adamw_kernel import Parameter

        settings = self.settings
        gradients = self.sums or {p: p.grad for p in self.masters if p.grad is not None}
        assert len(gradients) == len(self.masters)
        norms = torch._foreach_norm(list(gradients.values()), dtype=torch.float32)
        scale = (settings.clip_grad / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
        self.step += 1
        betas = (settings.adam_beta1, settings.adam_beta2)
        for group, decay in self.groups:
            kernel = self.kernels([Parameter(gradients[p], *self.tensors[p]) for p in group])
            kernel.update(self.step, scale, self.never, settings.lr, betas, settings.adam_eps, decay)
        for p in self.masters:
            p.grad = None
