"""Stops a run whose loss, gradients or weights are no numbers any more, before it saves them.

Losses are looked at where they are read anyway, with the log line, so an iteration costs nothing more. Only the last
pipeline stage has them: the hosts tell each other, and all ranks stop at once, with the same words.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from contextlm.parallel.agreement import Agreement
from contextlm.training import checkpoint_folder
from contextlm.training.faults import Fault
from contextlm.training.setup import gathered_weights

if TYPE_CHECKING:
    from contextlm.training.setup import Run
    from contextlm.training.step import StepResult

_WHAT = ("the loss is", "the gradient norm is", "a weight has become")


class NanCheck:
    """Collects what each iteration yields, and looks when it is asked to.

    With `--no-check-for-nan-in-loss-and-grad` it does nothing, nor with fp16's loss scale that adapts itself: there
    an overflow is how it finds its value.
    """

    def __init__(self, run: Run, hosts: Agreement) -> None:
        training = run.config.training
        adapts = training.fp16 and run.config.optimizer.loss_scale is None
        self._is_on = training.check_for_nan_in_loss_and_grad and not adapts
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
            found.append((self._run.progress.iteration, _WHAT.index("a weight has become")))
        # The first iteration is the smallest number; what is largest is agreed upon.
        (first,) = self._hosts.largest(
            max((-(len(_WHAT) * iteration + what) for iteration, what in found), default=-math.inf)
        )
        if first > -math.inf:
            iteration, what = divmod(int(-first), len(_WHAT))
            raise Fault(f"iteration {iteration}: {_WHAT[what]} NaN or infinite", self._remedy())

    def _in_results(self) -> list[tuple[int, int]]:
        """Iteration, and place in `_WHAT`, of everything that is not finite."""
        if not self._waiting:
            return []
        losses = torch.stack([result.loss for result in self._waiting]).tolist()
        # An fp16 iteration that was skipped has no norm, and did no harm.
        device = self._run.runtime.device
        norms = [0.0 if result.grad_norm is None else result.grad_norm for result in self._waiting]
        norms = torch.stack([torch.as_tensor(norm, dtype=torch.float32, device=device) for norm in norms]).tolist()
        first = self._run.progress.iteration - len(self._waiting) + 1
        self._waiting.clear()
        pairs = enumerate(zip(losses, norms, strict=True), start=first)
        return [(n, what) for n, pair in pairs for what, value in enumerate(pair) if not math.isfinite(value)]

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
