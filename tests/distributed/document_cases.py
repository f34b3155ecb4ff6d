"""What the ranks of a test of document boundaries do; run by the pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.distributed.runs import EOD, load_weights, small_run
from tests.random_weights import randomize
from tests.small_configs import VOCAB_SIZE


class _AllEnds:
    """Every sample of an iteration from `first` to `last`, of 4 samples each, is nothing but ends of documents."""

    samples_per_epoch = 1000

    def __init__(self, samples: Any, first: int, last: int) -> None:
        self.samples, self.first, self.last = samples, first, last

    def sample(self, n: int) -> np.ndarray:
        """Token ids, int64 [seq_length + 1]."""
        tokens = self.samples.sample(n)
        return np.full_like(tokens, EOD) if 4 * self.first <= n < 4 * self.last else tokens


def loss_by_hand(values: dict[str, Any]) -> tuple[float, float]:
    """The loss of one iteration of 4 samples, and the mean over its tokens that count, document after document."""
    from contextlm.training.step import compute_gradients

    with small_run("gpt2", **values) as run:
        randomize(run.language_model[0])
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        found = compute_gradients(run, batches).loss.item()
        batches.close()
        losses = []
        for n in range(4):
            sample = run.datasets.train.sample(n)
            begin = 0
            for position in range(len(sample) - 1):
                if sample[position] == EOD:
                    begin = position + 1  # what EOD predicts is not scored
                    continue
                document = torch.from_numpy(sample[begin : position + 1])[None]
                with torch.no_grad():
                    logits = run.language_model[0](document, torch.arange(position + 1 - begin)[None], None)
                wanted = torch.tensor([sample[position + 1]])
                losses.append(torch.nn.functional.cross_entropy(logits[0, -1:, :VOCAB_SIZE].float(), wanted).item())
        return found, sum(losses) / len(losses)


def steps_on_nothing(values: dict[str, Any]) -> list[tuple[float, float, bool]]:
    """Three iterations, in the second of which no token counts: loss, gradient norm, whether all weights are finite."""
    from contextlm.training.step import train_step

    found = []
    with small_run("gpt2", **values) as run:
        batches = run.micro_batches(_AllEnds(run.datasets.train, 1, 2), 0, run.num_microbatches)
        for _ in range(3):
            result = train_step(run, batches)
            run.progress.iteration += 1
            finite = all(bool(p.isfinite().all()) for part in run.model for p in part.parameters())
            found.append((result.loss.item(), float(result.grad_norm), finite))
        if batches is not None:
            batches.close()
        return found if run.layout.is_last_stage else []


def evaluations(folder: str, values: dict[str, Any]) -> list[Any]:
    """Evaluation of the shared checkpoint, with bytes of text, and where no token counts."""
    from contextlm.training.evaluation import evaluate

    with small_run("gpt2", **values) as run:
        load_weights(run, folder)
        lengths = torch.arange(VOCAB_SIZE, device=run.runtime.device)
        run.__dict__["token_byte_lengths"] = lengths
        samples = run.datasets.validation
        return [tuple(evaluate(run, each, 3)) for each in (samples, _AllEnds(samples, 0, 3))]


def evaluation_counts(values: dict[str, Any]) -> tuple[int, int]:
    """Tokens and bytes that count in the first 12 validation samples, by a loop."""
    with small_run("gpt2", **values) as run:
        pairs = [
            (before, label)
            for n in range(12)
            for before, label in zip(*(run.datasets.validation.sample(n)[at:][:66] for at in (0, 1)), strict=True)
        ]
    scored = [int(label) for before, label in pairs if before != EOD]
    return len(scored), sum(scored)
