"""`bad_steps/iteration_0000007.json`: all that can be known about a skipped iteration when the host learns of it.

The losses of its micro-batches and the norms of its gradients waited on the device for this. The weights are those of
now: the iteration itself changed none, but those after it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from contextlm import atomic_files
from contextlm.checkpoints import checkpoint_folder
from contextlm.training.layer_norms import layer_norms
from contextlm.training.skipping import Why

if TYPE_CHECKING:
    from contextlm.training.setup import Run
    from contextlm.training.step import StepResult

MOST_DUMPS = 5  # of one process
MOST_TEXTS, LETTERS = 8, 300


class BadStep(NamedTuple):
    """An iteration that was skipped; `first_sample` of its global batch."""

    iteration: int
    why: Why
    result: StepResult
    first_sample: int


class BadSteps:
    """Tells of the skipped iterations of a run, and describes the first of them in files."""

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._number = 0
        self._folder = None if run.config.output_dir is None else Path(run.config.output_dir, "bad_steps")

    @property
    def advice(self) -> str:
        """Where to read more, to be appended to a remedy."""
        return f"; {self._folder} describes the iteration" if self._number and self._folder is not None else ""

    def tell(self, step: BadStep) -> None:
        """Say it, and write the file of the first ones; collective."""
        self._say(f"iteration {step.iteration}: {step.why.sentence}; nothing was updated")
        if self._folder is None or self._number >= MOST_DUMPS:
            return
        self._number += 1
        of_ranks: list[Any] = [None] * self._run.runtime.world_size
        torch.distributed.all_gather_object(of_ranks, self._of_this_rank(step))
        layers = layer_norms(self._run, step.result.own_norms)
        if not self._run.layout.is_last_rank:
            return
        path = self._folder / f"iteration_{step.iteration:07d}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            atomic_files.write_json(path, in_json(self._description(step, of_ranks) | {"layers": layers}))
            self._say(f"{path} describes it")
        except Exception as error:  # data or a disk may fail here on this rank alone; the run goes on
            self._say(f"warning: {path} could not be written: {type(error).__name__}: {error}")

    def _of_this_rank(self, step: BadStep) -> dict[str, Any]:
        layout, result = self._run.layout, step.result
        losses = [loss / max(tokens, 1) for loss, tokens, *_ in result.own_sums.tolist()]
        norms = [] if result.own_norms is None else result.own_norms.tolist()
        return {
            "rank": self._run.runtime.rank,
            "tensor_rank": layout.tensor_rank,
            "pipeline_rank": layout.pipeline_rank,
            "data_rank": layout.data_rank,
            "losses_of_micro_batches": losses if layout.is_last_stage else None,
            "own_grad_norm": math.hypot(*norms) if norms else None,
        }

    def _description(self, step: BadStep, ranks: list[dict[str, Any]]) -> dict[str, Any]:
        run, (iteration, why, result, first) = self._run, step
        batches = _micro_batches(run, first, ranks)
        root = run.config.checkpoint.save
        before = None if root is None else checkpoint_folder.find(root)
        world_size = run.runtime.world_size
        launcher = "python" if world_size == 1 else f"torchrun --nproc-per-node {world_size}"
        return {
            "iteration": iteration,
            "why": why.sentence,
            "lm_loss": result.loss.item(),
            "grad_norm": None if result.grad_norm is None else result.grad_norm.item(),
            "learning_rate": result.learning_rate,
            "loss_scale": float(result.loss_scale),
            "consumed_samples": first,
            "global_batch_size": result.num_samples,
            "ranks_with_nan_loss": [x["rank"] for x in ranks if not _all_finite(x["losses_of_micro_batches"])],
            "ranks_with_nan_gradients": [x["rank"] for x in ranks if not _all_finite([x["own_grad_norm"]])],
            "ranks": ranks,
            "micro_batches": batches,
            "texts": _texts(run, batches),
            "checkpoint_before": None if before is None else str(before),
            "replay": f"{launcher} tools/replay_step.py --load {root or run.config.output_dir} --iteration {iteration}",
            "described_at_iteration": run.progress.iteration,
        }


def _micro_batches(run: Run, first_sample: int, ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The micro-batches of a global batch with their losses and the numbers of their samples, the worst first."""
    size, found = run.config.training.micro_batch_size, []
    for rank in ranks:
        if rank["tensor_rank"] == 0 and rank["losses_of_micro_batches"] is not None:
            for number, loss in enumerate(rank["losses_of_micro_batches"]):
                start = first_sample + number * run.samples_of_a_pass + rank["data_rank"] * size
                place = {"data_rank": rank["data_rank"], "micro_batch": number}
                found.append(place | {"lm_loss": loss, "samples": list(range(start, start + size))})
    return sorted(found, key=lambda batch: batch["lm_loss"] if math.isfinite(batch["lm_loss"]) else math.inf)[::-1]


def _texts(run: Run, batches: list[dict[str, Any]]) -> dict[str, str]:
    """The beginnings of the samples of the worst micro-batches, by their numbers."""
    samples = run.datasets.train
    assert samples is not None  # it trains
    numbers = [n for batch in batches for n in batch["samples"]][:MOST_TEXTS]
    return {str(n): run.tokenizer.decode(samples.sample(n).tolist())[:LETTERS] for n in numbers}


def _all_finite(values: list[float | None] | None) -> bool:
    return all(value is None or math.isfinite(value) for value in values or ())


def in_json(value: Any) -> Any:
    """JSON knows no NaN and no infinity: here they become words, for they are what it is about."""
    if isinstance(value, dict):
        return {name: in_json(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [in_json(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
