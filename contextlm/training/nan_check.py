"""Stops a run whose loss, gradients or weights are no numbers any more, before it saves them.

Losses are looked at where they are read anyway, with the log line, so an iteration costs nothing more. Only the last
pipeline stage has them: the hosts tell each other, and all ranks stop at once, with the same words.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from contextlm.checkpoints import checkpoint_folder
from contextlm.parallel.agreement import Agreement
from contextlm.training.faults import Fault
from contextlm.training.setup import gathered_weights

if TYPE_CHECKING:
    from contextlm.training.setup import Run
    from contextlm.training.step import StepResult

_LOSS, _NORM, _WEIGHT, _SKIPPED = _WHAT = (
    "the loss is NaN or infinite",
    "the gradient norm is NaN or infinite",
    "a weight has become NaN or infinite",
    "from here on all gradients are NaN or infinite, even at the least loss scale",
)


class NanCheck:
    """Collects what each iteration yields, and looks when it is asked to.

    With `--no-check-for-nan-in-loss-and-grad` it does nothing. Where fp16's loss scale adapts itself, an iteration
    that overflows is skipped and lowers the scale: no fault, unless the scale is at its least and none passes.
    """

    def __init__(self, run: Run, hosts: Agreement) -> None:
        training, optimizer = run.config.training, run.config.optimizer
        self._is_on = training.check_for_nan_in_loss_and_grad
        adapts = training.fp16 and optimizer.loss_scale is None
        self._least_scale = torch.tensor(optimizer.min_loss_scale).item() if adapts else None  # in fp32, as the scale
        self._run, self._hosts = run, hosts
        self._waiting: list[StepResult] = []

    def record(self, result: StepResult) -> None:
        """Keep one iteration's loss and gradient norm, on the device, until the next look."""
        if self._is_on and self._run.layout.is_last_stage:
            self._waiting.append(result)

    def look(self, *, before_save: bool) -> None:
        """Look at the iterations since the last look and, before a save, at the weights; collective.

        Raises:
            Fault: on every rank, naming the first iteration that went wrong.
        """
        if not self._is_on:
            return
        found = self._in_results()
        if before_save and self._run.config.checkpoint.save is not None and not self._weights_are_finite():
            found.append((self._run.progress.iteration, _WHAT.index(_WEIGHT)))
        # The first iteration is the smallest number; what is largest is agreed upon.
        (first,) = self._hosts.largest(
            max((-(len(_WHAT) * iteration + what) for iteration, what in found), default=-math.inf)
        )
        if first > -math.inf:
            iteration, what = divmod(int(-first), len(_WHAT))
            raise Fault(f"iteration {iteration}: {_WHAT[what]}", self._remedy())

    def _in_results(self) -> list[tuple[int, int]]:
        """Iteration, and place in `_WHAT`, of everything that is not finite."""
        first = self._run.progress.iteration - len(self._waiting) + 1
        results, self._waiting = list(enumerate(self._waiting, start=first)), []
        if self._least_scale is not None:
            passed = [(n, result) for n, result in results if not result.skipped]
            if results and not passed and float(results[0][1].loss_scale) <= self._least_scale:
                return [(first, _WHAT.index(_SKIPPED))]
            results = passed
        if not results:
            return []
        losses = torch.stack([result.loss for _, result in results]).tolist()
        # A skipped iteration has no norm, and did no harm.
        device = self._run.runtime.device
        norms = [0.0 if result.grad_norm is None else result.grad_norm for _, result in results]
        norms = torch.stack([torch.as_tensor(norm, dtype=torch.float32, device=device) for norm in norms]).tolist()
        values = ((_LOSS, losses), (_NORM, norms))
        return [
            (n, _WHAT.index(what))
            for what, column in values
            for (n, _), value in zip(results, column, strict=True)
            if not math.isfinite(value)
        ]

    def _weights_are_finite(self) -> bool:
        """Whether all weights of this rank are; without --clip-grad there is no norm that would tell."""
        with gathered_weights(self._run):
            weights = [weight for part in self._run.language_model for weight in part.parameters()]
            largest = torch._foreach_norm(weights, math.inf)
            return bool(torch.stack(largest).isfinite().all())

    def _remedy(self) -> str:
        root = self._run.config.checkpoint.save
        good = None if root is None else checkpoint_folder.find(root)
        return (
            f"{'no checkpoint was saved yet' if good is None else f'the last good checkpoint is {good}'}; go on with a "
            "lower --lr, more --lr-warmup-iters, --clip-grad 1.0 or --bf16 in place of --fp16; "
            "--no-check-for-nan-in-loss-and-grad goes on as it is"
        )
