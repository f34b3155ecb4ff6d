"""What the processes of the tests of compiled models do; run by the pool."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.distributed.causality_cases import random_tokens
from tests.distributed.runs import small_run
from tests.random_weights import randomize


def losses_and_gradients(backbone: str, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Of one micro-batch through random weights: each token's loss, and the gradient of their sum by parameter."""
    with small_run(backbone, **values) as run:
        randomize(run.language_model[0])
        tokens_BS = random_tokens(run, 2, run.config.model.seq_length + 1)
        inputs_BS, labels_BS = tokens_BS[:, :-1].contiguous(), tokens_BS[:, 1:].contiguous()
        positions_BS = torch.arange(inputs_BS.shape[1], device=inputs_BS.device).expand_as(inputs_BS)
        run.model[0].zero_grad_buffer()
        losses_BS = run.model[0].train()(inputs_BS, positions_BS, None, labels=labels_BS)
        losses_BS.sum().backward()
        weights = dict(run.language_model[0].named_parameters())
        found = {name: w.main_grad if w.grad is None else w.grad for name, w in weights.items()}
        return {name: value.float().cpu().numpy() for name, value in {"losses": losses_BS.detach(), **found}.items()}


def norm_kernels(values: dict[str, Any]) -> list[str]:
    """Names of the compiler's kernels of a forward pass with a LayerNorm in them, but for that of the embeddings."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        losses_and_gradients("gpt2", values)
    names = {event.key for event in profile.key_averages() if event.key.startswith("triton_")}
    elsewhere = ("backward", "embedding")
    return sorted(name for name in names if "native_layer_norm" in name and not any(word in name for word in elsewhere))


def trained(values: dict[str, Any], buffered: bool) -> dict[str, list[float]]:
    """Losses and gradient norms of five iterations, and the loss of an evaluation among them.

    Args:
        values: of the configuration; by themselves they ask for one micro-batch.
        buffered: keep gradients in a buffer where none is needed.
    """
    from contextlm.training import setup
    from contextlm.training.evaluation import evaluate
    from contextlm.training.step import train_step

    with contextlib.ExitStack() as stack:
        if buffered:
            stack.enter_context(mock.patch.object(setup, "without_buffers", lambda *arguments: False))
        given = {"bf16": True, "micro_batch_size": 2, "global_batch_size": 2, "lr": 1e-2, "clip_grad": 0.5}
        run = stack.enter_context(small_run("gpt2", **(given | values)))
        (optimizer,) = run.optimizer.chained_optimizers
        assert bool(optimizer.optimizer.owners) == (run.num_microbatches == 1 and not buffered)
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        found: dict[str, list[float]] = {"loss": [], "norm": [], "evaluated": []}
        for number in range(5):
            if number == 3:
                found["evaluated"].append(evaluate(run, run.datasets.validation, 2).lm_loss)
            result = train_step(run, batches)
            run.progress.iteration += 1
            found["loss"].append(result.loss.item())
            found["norm"].append(result.grad_norm.item())
        batches.close()
        return found


def compilations(values: dict[str, Any]) -> tuple[list[int], int]:
    """Train, evaluate and train on: how many graphs there are after each, and the breaks among them."""
    from contextlm.training.evaluation import evaluate
    from contextlm.training.step import train_step

    counters = torch._dynamo.utils.counters
    counters.clear()
    counts = []
    with small_run("pythia", **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        for _ in range(2):
            for _ in range(3):
                train_step(run, batches)
            evaluate(run, run.datasets.validation, 2)
            counts.append(counters["stats"]["unique_graphs"])
        batches.close()
    return counts, sum(counters["graph_break"].values())


def sums(gradient_type: str, sum_type: str, sizes: tuple[int, ...]) -> bool:
    """Whether the kernel adds two gradients up as torch does, bit for bit.

    Args:
        sizes: of the gradients, whose sums lie one behind the other.
    """
    from contextlm.megatron.blocks import Blocks
    from contextlm.megatron.sum_kernel import SumKernel

    generator = torch.Generator(device="cuda").manual_seed(1)
    blocks = Blocks(sizes, torch.device("cuda"))
    whole = torch.full((sum(sizes),), torch.nan, device="cuda", dtype=getattr(torch, sum_type))
    found, expected = whole.split(sizes), whole.clone().split(sizes)
    for adds in (False, True):
        gradients = [
            torch.randn(n, device="cuda", generator=generator).to(getattr(torch, gradient_type)) for n in sizes
        ]
        SumKernel(list(zip(found, gradients, strict=True)), blocks).add_up(adds)
        for each, gradient in zip(expected, gradients, strict=True):
            (each.add_ if adds else each.copy_)(gradient)
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def kernels_of_sums(values: dict[str, Any]) -> int:
    """How often the kernel ran in an iteration after the first."""
    from contextlm.training.step import train_step

    with small_run("gpt2", **values) as run:
        batches = run.micro_batches(run.datasets.train, 0, 2 * run.num_microbatches)
        train_step(run, batches)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            train_step(run, batches)
        batches.close()
    return sum(event.count for event in profile.key_averages() if event.key.startswith("_add_up"))


def biased_products(values: dict[str, Any], inside: bool) -> int:
    """How many products of an iteration add a bias.

    Args:
        values: of the configuration.
        inside: row products add theirs, as they do where nothing is compiled.
    """
    from contextlm.model.linear import RowLinear
    from contextlm.training.step import train_step

    def forward(layer: RowLinear, input_: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.nn.functional.linear(input_, layer.weight, layer.bias), None

    row = mock.patch.object(RowLinear, "forward", forward) if inside else contextlib.nullcontext()
    with row, small_run("gpt2", **values) as run:
        with contextlib.closing(run.micro_batches(run.datasets.train, 0, 2 * run.num_microbatches)) as batches:
            train_step(run, batches)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                train_step(run, batches)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::addmm")


def updates(gradient_type: str, weight_type: str | None) -> tuple[dict[str, float], bool]:
    """The kernel beside torch's own after ten updates, clipped: how far apart, relative to the largest value.

    Returns:
        the distances by kind; whether an update that is skipped leaves every bit as it was.
    """
    from contextlm.megatron.adamw_kernel import AdamWKernel, Parameter

    torch.manual_seed(1)
    device, sizes = torch.device("cuda"), (1, 2047, 2048, 4097, 100_000)
    masters = [torch.randn(size, device=device) for size in sizes]
    gradients = [torch.randn(size, device=device).to(getattr(torch, gradient_type)) for size in sizes]
    moments = [[torch.zeros_like(master) for master in masters] for _ in range(2)]
    weights = [None if weight_type is None else master.to(getattr(torch, weight_type)) for master in masters]
    copies = [[tensor.clone() for tensor in tensors] for tensors in (masters, *moments)]
    kernel = AdamWKernel(list(map(Parameter, gradients, masters, *moments, weights)))
    step, scale = torch.zeros(1, device=device), torch.full((1,), 0.25, device=device)
    no, yes = torch.zeros(1, device=device), torch.ones(1, device=device)
    settings: dict[str, Any] = {"lr": 1e-2, "eps": 1e-8, "weight_decay": 0.1}
    for _ in range(10):
        step += 1
        kernel.update(step, scale, no, betas=(0.9, 0.95), **settings)
        scaled = [gradient.float() * scale for gradient in gradients]
        more: dict[str, Any] = {"beta1": 0.9, "beta2": 0.95, "amsgrad": False, "maximize": False}
        steps = [step] * len(sizes)
        torch._fused_adamw_(copies[0], scaled, copies[1], copies[2], [], steps, **settings, **more)
    found = {
        kind: max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))
        for kind, ours, theirs in zip(("master", "exp_avg", "exp_avg_sq"), (masters, *moments), copies, strict=True)
    }
    if weight_type is not None:
        written = all(torch.equal(w, m.to(w.dtype)) for w, m in zip(weights, masters, strict=True))
        found["weight"] = 0.0 if written else 1.0
    held = [tensor for tensor in (*masters, *moments[0], *moments[1], *weights) if tensor is not None]
    before = [tensor.clone() for tensor in held]
    kernel.update(step, torch.full_like(scale, torch.nan), yes, betas=(0.9, 0.95), **settings)
    return found, all(torch.equal(a, b) for a, b in zip(before, held, strict=True))
