"""The trainers that are compared: our plain GPT, our ContextLM, and the peer, on the same random tokens.

Ours run as in a job: the loader, `train_step` and its optimizer, in a process group of one. The peer is handed tokens
that lie ready in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contextlm.analysis.flops import training_flops_per_token
from contextlm.config.fields import build
from contextlm.config.presets import preset
from contextlm.config.schema import Config
from contextlm.data.datasets import build_datasets
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.parallel import runtime
from plain_gpt import copy_weights
from plain_trainer import PlainTrainer

PEER, PLAIN, CONTEXT = "PyTorch", "plain", "ContextLM"


@dataclass(frozen=True)
class Size:
    """A model and its batch."""

    layers: int
    hidden: int
    heads: int
    seq_length: int
    vocab_size: int
    micro_batch_size: int
    num_microbatches: int

    @property
    def tokens(self) -> int:
        """Tokens of one iteration."""
        return self.micro_batch_size * self.num_microbatches * self.seq_length

    def __str__(self) -> str:
        return (
            f"{self.layers} layers x {self.hidden}, {self.heads} heads, S {self.seq_length}, "
            f"vocabulary {self.vocab_size}, batch {self.num_microbatches} x {self.micro_batch_size}"
        )

    def config(self, chunk_size: int, data: Path) -> Config:
        """Our configuration of it; chunk size 0 is the plain model."""
        values = {
            "num_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "seq_length": self.seq_length,
            "vocab_size": self.vocab_size,
            "micro_batch_size": self.micro_batch_size,
            "global_batch_size": self.micro_batch_size * self.num_microbatches,
            "train_iters": 1_000_000,
            "context_chunk_size": chunk_size,
            "data_path": (str(data),),
            "split": "100,0,0",
        }
        return build(preset("gpt2-tiny")["model"] | values, None)

    @property
    def overhead(self) -> float:
        """What the context head adds to the plain model's FLOPs, as a share of them."""
        plain, context = (
            training_flops_per_token(self.config(chunk_size, Path()), self.vocab_size) for chunk_size in (0, 4)
        )
        return context / plain - 1


SIZES = {
    "6x384": Size(6, 384, 6, 256, 8192, 4, 2),
    "124m": Size(12, 768, 12, 256, 50257, 2, 2),
    "quick": Size(2, 64, 2, 32, 512, 2, 2),
}


class RandomTokens:
    """What a run asks its tokenizer for."""

    kind = "random tokens"
    fingerprint = "none"
    eod = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def token_byte_lengths(self) -> None:
        """Not known."""

    def save(self, folder: Path) -> None:
        """Nothing to save."""


@contextlib.contextmanager
def trainers(size: Size) -> Iterator[dict[str, Callable[[], float]]]:
    """Name -> a function that does one iteration and returns its loss; all begin with the same backbone."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_tokens(folder / "random", size)
        plain = size.config(0, folder / "random")
        process = stack.enter_context(runtime.start(plain.parallel))
        # megatron-core is imported after the device was chosen.
        from contextlm.parallel.layout import model_parallel

        layout = stack.enter_context(model_parallel(plain.parallel))
        ours = {
            PLAIN: our_run(plain, process, layout, size),
            CONTEXT: our_run(size.config(4, folder / "random"), process, layout, size),
        }
        peer = PlainTrainer(plain, size.vocab_size)
        copy_weights(peer.model, ours[PLAIN].language_model[0].state_dict())
        yield {PEER: _peer_step(peer, ours[PLAIN], size)} | {
            name: stack.enter_context(_our_step(run)) for name, run in ours.items()
        }


def write_tokens(prefix: Path, size: Size) -> None:
    """A small dataset of random tokens."""
    draw = np.random.default_rng(0)
    with IndexedWriter(prefix, size.vocab_size) as writer:
        for _ in range(64):
            writer.add_document(draw.integers(0, size.vocab_size, 8 * size.seq_length))


def our_run(config: Config, process: Any, layout: Any, size: Size) -> Any:
    """The run of a configuration, ready to train."""
    from contextlm.training.setup import setup

    tokenizer: Any = RandomTokens(size.vocab_size)
    return setup(config, process, layout, tokenizer, build_datasets(config, tokenizer))


@contextlib.contextmanager
def _our_step(run: Any) -> Iterator[Callable[[], float]]:
    from contextlm.training.step import train_step

    with contextlib.closing(run.micro_batches(run.datasets.train, 0, run.num_microbatches)) as batches:

        def step() -> float:
            result = train_step(run, batches)
            run.progress.iteration += 1
            run.progress.consumed_samples += result.num_samples
            return result.loss.item()

        yield step


def _peer_step(peer: PlainTrainer, run: Any, size: Size) -> Callable[[], float]:
    """The peer on the run's own samples, those of the first iterations again and again."""
    with contextlib.closing(run.micro_batches(run.datasets.train, 0, size.num_microbatches)) as loader:
        ready = list(itertools.islice(loader, 8 * size.num_microbatches))
    batches = itertools.cycle(ready)

    def step() -> float:
        return peer.step(itertools.islice(batches, size.num_microbatches), size.num_microbatches).item()

    return step
