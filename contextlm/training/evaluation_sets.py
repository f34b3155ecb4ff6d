"""Which data is evaluated, for how long, and under which name it is told. How: `evaluation.py`."""

from __future__ import annotations

from collections.abc import Mapping

from contextlm.checkpoints import loading
from contextlm.data.samples import Samples
from contextlm.errors import UserError
from contextlm.training.announcement import announcement
from contextlm.training.evaluation import evaluate
from contextlm.training.metrics import Metrics
from contextlm.training.setup import Run, gathered_weights


def evaluate_due(run: Run, metrics: Metrics) -> float | None:
    """What is due after the last iteration: validation each `--eval-interval`, at the end of the run test too.

    What `metrics.jsonl` has already is left out, so a run that is continued catches up on what a stop or a failure
    came before.

    Returns:
        the validation loss, if it was found now.
    """
    iteration, loss = run.progress.iteration, None
    is_end = 0 < iteration == run.num_iterations
    if is_end or (iteration > 0 and iteration % run.config.training.eval_interval == 0):
        loss = evaluate_validation(run, metrics)
    if is_end:
        evaluate_test(run, metrics)
    return loss


def evaluate_validation(run: Run, metrics: Metrics) -> float | None:
    """The validation data, or each of its sets by itself; one whole pass with `--full-validation`.

    Returns:
        its loss, the mean over the sets if there are several; None if one of them has none.
    """
    training = run.config.training
    num_iters = None if training.full_validation else training.eval_iters
    several = {f"validation/{name}": samples for name, samples in run.datasets.validation_sets.items()}
    sets: Mapping[str, Samples | None] = several or {"validation": run.datasets.validation}
    found = [_evaluate(run, metrics, name, samples, num_iters) for name, samples in sets.items()]
    losses = [loss for loss in found if loss is not None]
    return sum(losses) / len(losses) if len(losses) == len(found) else None


def evaluate_test(run: Run, metrics: Metrics) -> None:
    """The test data."""
    _evaluate(run, metrics, "test", run.datasets.test, run.config.training.eval_iters)


def evaluate_only(run: Run) -> None:
    """What `--skip-train` does: validation and test of the checkpoint of `--load`.

    Nothing is saved, and what a run has left there stays, but for older results of the same evaluations.

    Raises:
        UserError: there is nothing to evaluate on.
    """
    if run.datasets.validation is None and run.datasets.test is None:
        raise UserError("--skip-train: neither validation nor test data hold a sample", *run.datasets.notes)
    with Metrics(run) as metrics:
        metrics.say(*announcement(run), *(f"note: {note}" for note in run.datasets.notes))
        loading.load_to_evaluate(run, metrics.say)
        metrics.start_to_evaluate()
        evaluate_validation(run, metrics)
        evaluate_test(run, metrics)


def _evaluate(run: Run, metrics: Metrics, name: str, samples: Samples | None, num_iters: int | None) -> float | None:
    """Evaluate on one set, if it was asked for, there is one, and its result is not known; returns the loss."""
    if num_iters == 0 or samples is None or metrics.has_evaluation(name):
        return None
    with gathered_weights(run):
        result = evaluate(run, samples, num_iters)
    if result is None:
        metrics.say(f"{name}: fewer samples than one micro-batch of every data-parallel rank; not evaluated")
        return None
    metrics.log_evaluation(name, result)
    return result.lm_loss
