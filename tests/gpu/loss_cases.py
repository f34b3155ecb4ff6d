"""What the processes of the tests of the loss do; run by the pool."""

from __future__ import annotations

import torch

from contextlm.config.sections.parallel import ParallelConfig
from contextlm.parallel import runtime

TOKENS = 37


def distances(num_ids: int, dtype: str) -> tuple[float, float]:
    """How far losses and gradients of this rank's share are from those worked out in fp64, relative to the largest."""
    with runtime.start(ParallelConfig()) as process:
        from contextlm.megatron.fused_loss import token_losses

        group = torch.distributed.group.WORLD
        rank, ranks = process.rank, process.world_size
        width = -(-num_ids // (128 * ranks)) * 128
        generator = torch.Generator().manual_seed(1)
        logits = (5 * torch.randn(TOKENS, width * ranks, generator=generator)).to(getattr(torch, dtype))
        labels = torch.randint(num_ids, (TOKENS,), generator=generator)
        weights = torch.rand(TOKENS, generator=generator)
        exact = logits[:, :num_ids].double().requires_grad_()
        expected = torch.nn.functional.cross_entropy(exact, labels, reduction="none")
        (expected * weights.double()).sum().backward()
        assert exact.grad is not None
        gradient = torch.zeros(TOKENS, width * ranks, dtype=torch.float64)
        gradient[:, :num_ids] = exact.grad

        first = rank * width
        share = logits[:, first : first + width].contiguous().cuda().requires_grad_()
        own_ids = max(0, min(width, num_ids - first))
        # A copy, as a product's output is: the gradients are written into it.
        losses = token_losses(share * 1, labels.cuda(), first, own_ids, group)
        (losses * weights.cuda()).sum().backward()
        assert share.grad is not None
        found, wanted = share.grad.double().cpu(), gradient[:, first : first + width]
        loss = (losses.detach().double().cpu() - expected.detach()).abs().max() / expected.detach().abs().max().clamp(
            min=1
        )
        return float(loss), float((found - wanted).abs().max() / gradient.abs().max().clamp(min=0.1))


def padding_matters() -> bool:
    """Whether a loss changes, or a gradient is not zero, where the padding's logits are huge."""
    with runtime.start(ParallelConfig()):
        from contextlm.megatron.fused_loss import token_losses

        logits = torch.randn(TOKENS, 256, device="cuda")
        labels = torch.randint(200, (TOKENS,), device="cuda")
        found = []
        for padding in (0.0, 1e4):
            logits[:, 200:] = padding
            leaf = logits.clone().requires_grad_()
            losses = token_losses(leaf * 1, labels, 0, 200, torch.distributed.group.WORLD)
            losses.sum().backward()
            found.append((losses.detach(), leaf.grad))
        (losses, gradients), (others, other_gradients) = found
        same = torch.equal(losses, others) and torch.equal(gradients, other_gradients)
        return not same or bool(gradients[:, 200:].any())
