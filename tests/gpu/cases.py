"""What the processes of a GPU test do; run by the pool."""

from __future__ import annotations

from typing import Any

import torch

from tests.distributed.runs import small_run
from tests.random_weights import randomize
from tests.small_configs import VOCAB_SIZE


def _logits(run: Any, tokens_BS: torch.Tensor) -> torch.Tensor:
    """Logits [B, S, V] in evaluation mode."""
    positions = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
    with torch.no_grad():
        return run.model[0].eval()(tokens_BS, positions, None)[..., :VOCAB_SIZE].float()


def _random_tokens(run: Any, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB_SIZE, (batch, length), generator=generator).to(run.runtime.device)


def logits(backbone: str, values: dict[str, Any]) -> Any:
    """Logits of random weights, and the device they were computed on."""
    with small_run(backbone, **values) as run:
        randomize(run.language_model[0])
        found = _logits(run, _random_tokens(run, 2, run.config.model.seq_length)).cpu().numpy()
        return str(run.runtime.device.type), found


def leaks(backbone: str, values: dict[str, Any], off_by_one: bool = False) -> list[int]:
    """Positions whose change reaches a logit before them, over every phase of a chunk.

    Args:
        backbone: which one.
        values: of the configuration.
        off_by_one: sabotage: each token receives the prediction of the chunk after its own.
    """
    from contextlm.model import context_head

    aligned = context_head.spread
    if off_by_one:
        context_head.spread = lambda prediction, *rest: aligned(prediction.roll(-1, dims=0), *rest)
    try:
        return _leaks(backbone, values)
    finally:
        context_head.spread = aligned


def _leaks(backbone: str, values: dict[str, Any]) -> list[int]:
    with small_run(backbone, **values) as run:
        randomize(run.language_model[0])
        tokens = _random_tokens(run, 2, run.config.model.seq_length)
        before = _logits(run, tokens)
        found = []
        for s in range(1, tokens.shape[1]):
            changed = tokens.clone()
            changed[:, s:] = (changed[:, s:] + 1) % VOCAB_SIZE
            after = _logits(run, changed)
            assert not torch.equal(after[:, s:], before[:, s:])
            if not torch.equal(after[:, :s], before[:, :s]):
                found.append(s)
        return found


def peak_bytes(values: dict[str, Any]) -> int:
    """Peak memory of one training step, above what it began with."""
    from contextlm.training.step import train_step

    with small_run("gpt2", **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = torch.cuda.memory_allocated()
        train_step(run, batches)
        batches.close()
        return torch.cuda.max_memory_allocated() - began


def activation_bytes(backbone: str, values: dict[str, Any]) -> tuple[int, int]:
    """Bytes that the allocator holds for a micro-batch after its forward pass, and at most until the backward ends."""
    with small_run(backbone, **values) as run:
        model = run.model[0].train()
        tokens_BS = _random_tokens(run, run.config.training.micro_batch_size, run.config.model.seq_length)
        positions_BS = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
        kept = peak = 0
        for _ in range(2):  # the first time libraries and megatron-core take buffers that stay
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            began = torch.cuda.memory_allocated()
            loss_BS = model(tokens_BS, positions_BS, None, labels=tokens_BS)
            kept = torch.cuda.memory_allocated() - began
            loss_BS.sum().backward()
            del loss_BS
            peak = torch.cuda.max_memory_allocated() - began
        return kept, peak


def waits(values: dict[str, Any], planted: bool = False) -> list[str]:
    """Train 12 iterations with a log line after each 6; what CUDA says of waits between log lines, one for each.

    Args:
        values: of the configuration.
        planted: fetch the loss of each iteration.
    """
    import warnings
    from unittest import mock

    from contextlm.training import train

    def step(run: Any, batches: Any) -> Any:
        done = run.progress.iteration
        torch.cuda.set_sync_debug_mode("warn" if done % 6 else "default")
        result = original(run, batches)
        if planted:
            result.loss.item()
        torch.cuda.set_sync_debug_mode("default")
        return result

    original = train.train_step
    given = {"train_iters": 12, "log_interval": 6, "eval_iters": 0, "micro_batch_size": 2, "clip_grad": 0.5}
    with small_run("gpt2", **(given | values)) as run, mock.patch.object(train, "train_step", step):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train.train(run)
    return [str(warning.message) for warning in caught if "called a synchronizing" in str(warning.message)]
