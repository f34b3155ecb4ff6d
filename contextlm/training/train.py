"""The training loop: start or resume, step, log, evaluate, save, stop."""

from __future__ import annotations

from contextlm.data.samples import Samples
from contextlm.training import checkpoint, replicas
from contextlm.training.announcement import announcement
from contextlm.training.evaluation import evaluate
from contextlm.training.metrics import Metrics
from contextlm.training.setup import Run, gathered_weights
from contextlm.training.step import train_step


def train(run: Run) -> None:
    """Train until `--train-iters` or `--exit-interval`, and leave a checkpoint where `--save` says so."""
    config, progress = run.config.training, run.progress
    metrics = Metrics(run)
    metrics.say(*announcement(run), *(f"note: {note}" for note in run.datasets.notes))
    started_at = checkpoint.load(run, metrics.say)
    metrics.start(started_at)
    if progress.iteration >= config.train_iters:
        metrics.say(f"nothing to do: iteration {progress.iteration} of {config.train_iters} is done")
        return
    batches = run.micro_batches(run.datasets.train, progress.consumed_samples, run.num_microbatches_at)
    while progress.iteration < config.train_iters:
        result = train_step(run, batches)
        progress.iteration += 1
        progress.consumed_samples += result.num_samples
        metrics.record(result)
        last = progress.iteration == config.train_iters
        stop = last or _due(progress.iteration, config.exit_interval)
        if stop or _due(progress.iteration, run.config.logging.log_interval):
            metrics.log()
        if _due(progress.iteration, config.check_replicas_interval):
            replicas.check(run)
        if last or _due(progress.iteration, config.eval_interval):
            _evaluate(run, metrics, "validation", run.datasets.validation)
        if last:
            _evaluate(run, metrics, "test", run.datasets.test)
        if stop or _due(progress.iteration, run.config.checkpoint.save_interval):
            metrics.log()
            checkpoint.save(run, metrics.say)
            metrics.restart_clock()
        if stop:
            break
    if batches is not None:
        batches.close()
    metrics.log()


def _due(iteration: int, interval: int | None) -> bool:
    """Whether something that happens every `interval` iterations happens now."""
    return interval is not None and iteration % interval == 0


def _evaluate(run: Run, metrics: Metrics, split: str, samples: Samples | None) -> None:
    """Evaluate on one split, if it was asked for and there is one."""
    if run.config.training.eval_iters == 0 or samples is None:
        return
    with gathered_weights(run):
        result = evaluate(run, samples, run.config.training.eval_iters)
    if result is None:
        metrics.say(f"{split}: fewer samples than one micro-batch of every data-parallel rank; not evaluated")
    else:
        metrics.log_evaluation(split, result)
