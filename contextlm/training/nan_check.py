"""What follows when iterations updated nothing: told, counted, dumped, and stopped or rolled back where it must be.

The device decides by itself (`skipping.py`). What it decided is looked at where losses are read anyway, with the log
line. All ranks read the same codes, and so come to the same end with the same words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from contextlm.checkpoints import checkpoint_folder, loading
from contextlm.parallel.agreement import Agreement
from contextlm.training.bad_steps import BadStep, BadSteps
from contextlm.training.faults import Fault
from contextlm.training.setup import gathered_weights
from contextlm.training.skipping import Why

if TYPE_CHECKING:
    from contextlm.training.setup import Run
    from contextlm.training.step import StepResult

ROLLBACKS = 3
_TOO_MANY_IN_A_ROW = (
    ({why.word for why in Why if why.is_nan}, 3),
    # The window keeps what was usual before: what has become usual would be skipped for ever.
    ({why.word for why in Why if why.is_spike}, 32),
)
_WEIGHT = "a weight has become NaN or infinite"
_LEAST_SCALE = "from here on all gradients are NaN or infinite, even at the least loss scale"


class NanCheck:
    """Collects what each iteration yields, and looks when it is asked to.

    Where fp16's loss scale adapts itself, an iteration that overflows is skipped and lowers the scale: no fault, unless
    the scale is at its least and none passes.
    """

    def __init__(self, run: Run, hosts: Agreement, say: Callable[[str], None]) -> None:
        training, optimizer = run.config.training, run.config.optimizer
        self._checks, self._on_nan = training.check_for_nan_in_loss_and_grad, training.on_nan
        adapts = training.fp16 and optimizer.loss_scale is None
        self._least_scale = torch.tensor(optimizer.min_loss_scale).item() if adapts else None  # in fp32, as the scale
        self._run, self._hosts, self._say = run, hosts, say
        self._bad_steps = BadSteps(run, say)
        self._waiting: list[StepResult] = []
        self._rollbacks = 0

    def record(self, result: StepResult) -> None:
        """Keep what one iteration yielded, on the device, until the next look."""
        self._waiting.append(result)

    def look(self, *, before_save: bool) -> bool:
        """Look at the iterations since the last look and, before a save, at the weights; collective.

        Returns:
            whether the run went back to a checkpoint: what reads data and writes metrics must follow.

        Raises:
            Fault: on every rank, naming the iteration that went wrong.
        """
        first = self._run.progress.iteration - len(self._waiting) + 1
        results, self._waiting = dict(enumerate(self._waiting, start=first)), []
        codes = torch.stack([result.skipped for result in results.values()]).tolist() if results else []
        skipped = {n: Why(code) for n, code in zip(results, codes, strict=True) if code}
        for n, why in skipped.items():
            self._run.progress.skipped_iterations.append((n, why.word))
            if why.is_nan or why.is_spike:
                samples = sum(result.num_samples for number, result in results.items() if number >= n)
                self._bad_steps.tell(BadStep(n, why, results[n], self._run.progress.consumed_samples - samples))
        fault = self._fault(results, skipped) if self._checks else None
        if fault is None and self._checks and before_save and not self._weights_are_finite():
            fault = f"iteration {self._run.progress.iteration}: {_WEIGHT}"
        if fault is None:
            return False
        if self._on_nan == "rollback" and self._rollbacks < ROLLBACKS and self._went_back(fault):
            return True
        bad = next((n for n, why in skipped.items() if why.is_nan), None)
        raise Fault(fault + f", after {self._rollbacks} rollbacks" * (self._rollbacks > 0), self._remedy(bad))

    def _fault(self, results: dict[int, StepResult], skipped: dict[int, Why]) -> str | None:
        """What is too much, if anything is."""
        least, all_overflow = self._least_scale, list(skipped.values()) == [Why.OVERFLOW] * max(len(results), 1)
        if least is not None and all_overflow and float(results[min(results)].loss_scale) <= least:
            return f"iteration {min(results)}: {_LEAST_SCALE}"
        bad = [n for n, why in skipped.items() if why.is_nan]
        if bad and self._on_nan != "skip":
            return f"iteration {bad[0]}: {skipped[bad[0]].sentence}"
        for words, most in _TOO_MANY_IN_A_ROW:
            of_kind = {n for n, word in self._run.progress.skipped_iterations if word in words}
            for n, why in skipped.items():
                if {n - back for back in range(most)} <= of_kind:
                    return f"iteration {n}: {why.sentence}, as in the {most - 1} before it"
        return None

    def _went_back(self, fault: str) -> bool:
        """Go on from the newest checkpoint, if there is one: a look comes before each save, so nothing bad is in it."""
        root = self._run.config.checkpoint.save
        folder = None if root is None else checkpoint_folder.find(root)
        if folder is None:
            return False
        self._rollbacks += 1
        self._say(f"{fault}: back to {folder} (rollback {self._rollbacks} of at most {ROLLBACKS})")
        loading.roll_back(self._run, folder, self._say)
        return True

    def _weights_are_finite(self) -> bool:
        """Whether all weights of all ranks are: an update can make them infinite from gradients that are finite."""
        if self._run.config.checkpoint.save is None:
            return True
        with gathered_weights(self._run):
            weights = [weight for part in self._run.language_model for weight in part.parameters()]
            largest = torch._foreach_norm(weights, math.inf)
            is_finite = bool(torch.stack(largest).isfinite().all())
        return self._hosts.largest(not is_finite) == [0]

    def _remedy(self, bad: int | None) -> str:
        skip = "" if bad is None else f", or --iterations-to-skip {bad}"
        root = self._run.config.checkpoint.save
        good = None if root is None else checkpoint_folder.find(root)
        return (
            f"{'no checkpoint was saved yet' if good is None else f'the last good checkpoint is {good}'}; go on with a "
            f"lower --lr, more --lr-warmup-iters, --clip-grad 1.0 or --bf16 in place of --fp16{skip}"
            f"{self._bad_steps.advice}; --no-check-for-nan-in-loss-and-grad goes on as it is"
        )
