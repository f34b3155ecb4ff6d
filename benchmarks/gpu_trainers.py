"""The trainers that `gpu.py` compares: our plain GPT, our ContextLM, and the best plain PyTorch that we know.

Ours run as in a job: the loader, `train_step` and its optimizer, compiled as `--compile auto` says. The peer is
`plain_gpt.py` in bf16 with fp32 master weights, compiled as one graph, with one-kernel AdamW; its tokens lie on the
GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from contextlm.config.fields import build
from contextlm.config.presets import preset
from contextlm.config.schema import Config
from contextlm.data.datasets import build_datasets
from plain_gpt import PlainGPT
from trainers import RandomTokens

PEER, PLAIN, CONTEXT = "PyTorch", "plain", "ContextLM"
Step = Callable[[], object]


def configuration(name: str, micro_batch_size: int, data: Path) -> Config:
    """One micro-batch an iteration of a preset, in bf16."""
    chosen = preset(name)
    values = {
        "micro_batch_size": micro_batch_size,
        "global_batch_size": micro_batch_size,
        "train_iters": 1_000_000,
        "bf16": True,
        "data_path": (str(data),),
        "split": "100,0,0",
    }
    return build(chosen["model"] | chosen["optimizer"] | chosen.get("context", {}) | values, None)


@contextlib.contextmanager
def ours(config: Config, process: Any, layout: Any) -> Iterator[Step]:
    """One iteration of our trainer."""
    from megatron.core.utils import get_model_config

    from contextlm.training.setup import setup
    from contextlm.training.step import train_step

    assert config.model.vocab_size is not None
    tokenizer: Any = RandomTokens(config.model.vocab_size)
    run = setup(config, process, layout, tokenizer, build_datasets(config, tokenizer))
    with contextlib.closing(run.micro_batches(run.datasets.train, 0, run.num_microbatches)) as batches:

        def step() -> torch.Tensor:
            result = train_step(run, batches)
            run.progress.iteration += 1
            run.progress.consumed_samples += result.num_samples
            return result.loss

        try:
            yield step
        finally:
            # Through the loss scale the layers' configuration holds the optimizer, and so the memory, for good.
            get_model_config(run.model[0]).grad_scale_func = None


@contextlib.contextmanager
def peer(config: Config, process: Any, layout: Any) -> Iterator[Step]:
    """One iteration of the peer; GPT-2 only."""
    model, settings, batch = config.model, config.optimizer, config.training.micro_batch_size
    assert model.vocab_size is not None
    gpt = PlainGPT(
        model.num_layers,
        model.hidden_size,
        model.num_attention_heads,
        model.seq_length,
        model.padded_vocab_size(model.vocab_size, 1),
    )
    gpt = gpt.to(process.device, torch.bfloat16)
    compiled = torch.compile(gpt, dynamic=False)
    update = _Update(gpt, settings)
    tokens = torch.randint(0, model.vocab_size, (8, batch, model.seq_length + 1), device=process.device)
    inputs, labels = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
    count = 0

    def step() -> torch.Tensor:
        nonlocal count
        loss = compiled(inputs[count % 8], labels[count % 8])
        loss.backward()
        update()
        count += 1
        return loss

    yield step


class _Update:
    """Norm, clip and AdamW over bf16 gradients, with fp32 master weights; the kernel is the trainer's own."""

    def __init__(self, gpt: PlainGPT, settings: Any) -> None:
        self.settings = settings
        self.matrices = [p for p in gpt.parameters() if p.dim() == 2]
        self.vectors = [p for p in gpt.parameters() if p.dim() == 1]
        self.state = {
            p: (p.detach().float(), *(torch.zeros_like(p, dtype=torch.float32) for _ in range(2)))
            for p in gpt.parameters()
        }
        self.step = torch.zeros(1, device=self.matrices[0].device)
        self.never = torch.zeros_like(self.step)
        self.kernels: dict[tuple[int, ...], list[Any]] = {}

    def __call__(self) -> None:
        from contextlm.megatron.adamw_kernel import AdamWKernel, Parameter  # Triton comes with CUDA

        settings = self.settings
        gradients = [p.grad for p in self.state]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
        scale = (settings.clip_grad / (norm + 1e-6)).clamp(max=1.0)
        self.step += 1
        # The allocator hands out the same addresses again and again.
        places = tuple(gradient.data_ptr() for gradient in gradients)
        if places not in self.kernels:
            self.kernels[places] = [
                AdamWKernel([Parameter(p.grad, *self.state[p], p.detach()) for p in parameters])
                for parameters in (self.matrices, self.vectors)
            ]
        betas = (settings.adam_beta1, settings.adam_beta2)
        for kernel, decay in zip(self.kernels[places], (settings.weight_decay, 0.0), strict=True):
            kernel.update(self.step, scale, self.never, settings.lr, betas, settings.adam_eps, decay)
        for p in self.state:
            p.grad = None
