"""The trainers that `gpu.py` compares: our plain GPT and our ContextLM, and the peer (`gpu_peer.py`).

Ours run as in a job: the loader, `train_step` and its optimizer, compiled as `--compile auto` says.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.parameters import count_parameters
from contextlm.config.fields import build
from contextlm.config.presets import preset, preset_names
from contextlm.config.schema import Config
from contextlm.data.datasets import build_datasets
from trainers import RandomTokens

PLAIN, CONTEXT, PEER = "plain", "ContextLM", "PyTorch"
PEER_OUR_LOSS = "PyTorch, our loss"
PLAIN_AGAIN, CONTEXT_AGAIN = "plain, recomputed", "ContextLM, recomputed"
PLAIN_FP8 = "plain, fp8"
TRAINERS = (PLAIN, PEER, CONTEXT, PEER_OUR_LOSS, PLAIN_FP8, PLAIN_AGAIN, CONTEXT_AGAIN)
AGAINST = {
    PLAIN: PEER,
    CONTEXT: PLAIN,
    PEER_OUR_LOSS: PEER,
    PLAIN_AGAIN: PLAIN,
    CONTEXT_AGAIN: CONTEXT,
    PLAIN_FP8: PLAIN,
}
_RECOMPUTED: dict[str, Any] = {
    "recompute_granularity": "full",
    "recompute_method": "uniform",
    "recompute_num_layers": 1,
}
_MORE: dict[str, dict[str, Any]] = {
    PLAIN_AGAIN: _RECOMPUTED,
    CONTEXT_AGAIN: _RECOMPUTED,
    PLAIN_FP8: {"fp8_format": "hybrid", "fp8_recipe": "tensorwise"},
}

Step = Callable[[], object]
"""One iteration; nobody waits for the device."""


class Subject(NamedTuple):
    """A plain preset, its micro-batch, and how many of them an iteration has."""

    preset: str
    micro_batch_size: int
    num_microbatches: int = 1

    def __str__(self) -> str:
        several = f"x{self.num_microbatches}" if self.num_microbatches > 1 else ""
        return f"{self.preset}:{self.micro_batch_size}{several}"

    def configuration(self, trainer: str, data: Path, **values: Any) -> Config:
        """What a trainer is built from; the peer takes the plain model's."""
        chosen = preset(f"contextlm-{self.preset}" if trainer in (CONTEXT, CONTEXT_AGAIN) else self.preset)
        settings = {
            "micro_batch_size": self.micro_batch_size,
            "global_batch_size": self.micro_batch_size * self.num_microbatches,
            "train_iters": 1_000_000,
            "bf16": True,
            "data_path": (str(data),),
            "split": "100,0,0",
            "eval_iters": 0,
        }
        context, more = chosen.get("context", {}), _MORE.get(trainer, {})
        return build(chosen["model"] | chosen["optimizer"] | context | settings | more | values, None)


def subject(text: str) -> Subject:
    """`PRESET:MICRO_BATCH_SIZE`, or `PRESET:MICRO_BATCH_SIZExNUMBER`, of a plain preset that has a vocabulary."""
    name, _, batch = text.partition(":")
    size, has_several, number = batch.partition("x")
    plain = [known for known in preset_names() if not known.startswith("contextlm-") and not known.endswith("-tiny")]
    counts = [size, number] if has_several else [size]
    if name not in plain or not all(count.isdigit() and int(count) for count in counts):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give PRESET:MICRO_BATCH_SIZE, e.g. gpt2-124m:32, or gpt2-124m:32x4 for four micro-batches an "
            f"iteration, with one of {', '.join(plain)}"
        )
    return Subject(name, *map(int, counts))


def vocab_size(config: Config) -> int:
    """The preset's."""
    assert config.model.vocab_size is not None
    return config.model.vocab_size


def flops(config: Config, *, causal_half: bool = False) -> float:
    """Training FLOPs per token."""
    return training_flops_per_token(config, vocab_size(config), causal_half=causal_half)


def num_parameters(config: Config) -> int:
    """Of the model, padding not counted."""
    return count_parameters(config, vocab_size(config)).total


def build_run(config: Config, process: Any, layout: Any) -> Any:
    """Our run of a configuration, ready to train."""
    from contextlm.training.setup import setup

    tokenizer: Any = RandomTokens(vocab_size(config))
    return setup(config, process, layout, tokenizer, build_datasets(config, tokenizer))


@contextlib.contextmanager
def released(run: Any) -> Iterator[Any]:
    """Lets go of the run's memory at the end."""
    from megatron.core.utils import get_model_config

    try:
        yield run
    finally:
        # Through the loss scale the layers' configuration holds the optimizer, and so the memory, for good.
        get_model_config(run.model[0]).grad_scale_func = None


@contextlib.contextmanager
def ours(run: Any) -> Iterator[Step]:
    """One iteration of our trainer, from the loader on."""
    with contextlib.closing(run.micro_batches(run.datasets.train, 0, run.num_microbatches)) as batches:
        yield stepping(run, batches)


def stepping(run: Any, batches: Iterator[torch.Tensor]) -> Step:
    """One iteration on the next of these micro-batches."""
    from contextlm.training.step import train_step

    def step() -> torch.Tensor:
        result = train_step(run, batches)
        run.progress.iteration += 1
        run.progress.consumed_samples += result.num_samples
        return result.loss

    return step


def versions() -> Mapping[str, str]:
    """Of what decides about speed."""
    import importlib.metadata

    found = {"torch": torch.__version__, "cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    for name in ("megatron-core", "triton"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
