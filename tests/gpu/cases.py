"""What the processes of a GPU test do; run by the pool."""

from __future__ import annotations

import contextlib
import gc
from typing import Any
from unittest import mock

import torch

from tests.distributed.causality_cases import logits_of, random_tokens
from tests.distributed.runs import small_run
from tests.random_weights import randomize


def logits(backbone: str, values: dict[str, Any]) -> Any:
    """Logits of random weights, and the device they were computed on."""
    with small_run(backbone, **values) as run:
        randomize(run.language_model[0])
        found = logits_of(run, random_tokens(run, 2, run.config.model.seq_length)).cpu().numpy()
        return str(run.runtime.device.type), found


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
        tokens_BS = random_tokens(run, run.config.training.micro_batch_size, run.config.model.seq_length)
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


def whole_peak_bytes(backbone: str, values: dict[str, Any]) -> int:
    """The most that the allocator held in a training step, model, optimizer and libraries included."""
    from contextlm.training.step import train_step

    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # those of an earlier case are not this one's
    began = torch.cuda.memory_allocated()
    assert began < 2**26, f"{began} bytes of an earlier case are held, and may be let go in this one"
    with small_run(backbone, **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, 3 * run.num_microbatches)
        for _ in range(3):  # in the first the optimizer makes its states, and there is no peak of a later one yet
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            train_step(run, batches)
        torch.cuda.synchronize()
        batches.close()
        return torch.cuda.max_memory_allocated() - began


def bytes_outside(values: dict[str, Any], mended: bool = True) -> int:
    """What one iteration takes of the GPU's memory beside what torch's allocator holds; nobody else may use it.

    Args:
        values: of the configuration.
        mended: groups of the same ranks are one.
    """
    from contextlm.megatron import shared_groups
    from contextlm.training.step import train_step

    stock = mock.patch.object(shared_groups, "of_the_same_ranks", contextlib.nullcontext)

    def outside() -> int:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved()

    began = outside()
    with contextlib.nullcontext() if mended else stock, small_run("gpt2", **values) as run:
        with contextlib.closing(run.micro_batches(run.datasets.train, 0, run.num_microbatches)) as batches:
            train_step(run, batches)
        return outside() - began


def held_bytes(grows: bool = True) -> int:
    """Bytes that torch holds of this GPU after a GiB took the place of two halves beside which a tensor stays.

    Args:
        grows: segments do, as they are set; False: as torch has them.
    """
    from contextlm.parallel.gpu_memory import GROWING, tell

    with small_run("gpt2"):
        torch.cuda.empty_cache()
        if not grows:
            tell("expandable_segments:False")
        began, halves, stays = torch.cuda.memory_reserved(), [], []
        for _ in range(2):
            halves.append(torch.empty(2**29 + 2**25, dtype=torch.uint8, device="cuda"))
        halves.clear()
        for _ in range(2):
            stays.append(torch.empty(2**25, dtype=torch.uint8, device="cuda"))
        whole = torch.empty(2**30, dtype=torch.uint8, device="cuda")
        held = torch.cuda.memory_reserved() - began
        del whole, stays
        torch.cuda.empty_cache()
        tell(GROWING)
        return held


def memory_of_gpu() -> int:
    """Bytes of this process's GPU."""
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def waits(values: dict[str, Any], planted: bool = False, settled: int = 0) -> list[str]:
    """Train 12 iterations with a log line after each 6; what CUDA says of waits between log lines, one for each.

    Of `torch.cuda.synchronize` CUDA says nothing, so its calls are added.

    Args:
        values: of the configuration.
        planted: fetch the loss of each iteration.
        settled: iterations that do not count; CUDA graphs are made in the second.
    """
    import warnings
    from unittest import mock

    from contextlm.training import train

    def step(run: Any, batches: Any) -> Any:
        done = run.progress.iteration
        torch.cuda.set_sync_debug_mode("warn" if done % 6 and done >= settled else "default")
        result = original(run, batches)
        if planted:
            result.loss.item()
        torch.cuda.set_sync_debug_mode("default")
        return result

    def synchronize(*arguments: Any) -> None:
        if torch.cuda.get_sync_debug_mode():
            asked.append("torch.cuda.synchronize")
        wait(*arguments)

    original, asked, wait = train.train_step, list[str](), torch.cuda.synchronize
    given = {"train_iters": 12, "log_interval": 6, "eval_iters": 0, "micro_batch_size": 2, "clip_grad": 0.5}
    with small_run("gpt2", **(given | values)) as run, mock.patch.object(train, "train_step", step):
        with warnings.catch_warnings(record=True) as caught, mock.patch.object(torch.cuda, "synchronize", synchronize):
            warnings.simplefilter("always")
            train.train(run)
    said = [str(warning.message) for warning in caught if "called a synchronizing" in str(warning.message)]
    return said + asked
