"""The training loop: start or resume, step, log, save, evaluate, stop."""

from __future__ import annotations

from collections.abc import Callable

from contextlm.checkpoints import loading, save_lock
from contextlm.checkpoints.saving import Saving, save_config
from contextlm.data.loader import Stream
from contextlm.parallel.agreement import Agreement
from contextlm.training import events, replicas
from contextlm.training.announcement import announcement
from contextlm.training.evaluation_sets import evaluate_due
from contextlm.training.garbage import collected_by_hand
from contextlm.training.metrics import Metrics
from contextlm.training.nan_check import NanCheck
from contextlm.training.profiling import Profile
from contextlm.training.setup import Run
from contextlm.training.step import train_step
from contextlm.training.stopping import Stopping


def train(run: Run) -> str | None:
    """Train to the end, or to a stop before it, and leave a checkpoint where `--save` says so.

    Returns:
        the name of the signal that stopped it; None if it did what was asked.
    """
    with Metrics(run) as metrics, Profile(run, metrics) as profile, collected_by_hand() as collect_garbage:
        return _train(run, metrics, profile, collect_garbage)


def _train(run: Run, metrics: Metrics, profile: Profile, collect_garbage: Callable[[], int]) -> str | None:
    """The loop, between the objects that it calls."""
    config, progress = run.config.training, run.progress
    metrics.say(*announcement(run), *(f"note: {note}" for note in run.datasets.notes))
    started_at = loading.load(run, metrics.say)
    metrics.start(started_at)
    evaluate_due(run, metrics)
    if progress.iteration >= run.num_iterations:
        metrics.say(f"nothing to do: iteration {progress.iteration} of {run.num_iterations} is done")
        return None
    save_config(run)
    events.begin(run)
    hosts = Agreement(run.config.parallel.distributed_timeout_minutes)
    nan_check = NanCheck(run, hosts, metrics.say)
    batches = _batches(run, metrics)
    with Stopping(run, hosts, metrics.say) as stopping, Saving(run, hosts, metrics.say) as saving:
        while progress.iteration < run.num_iterations:
            profile.before_iteration()
            result = train_step(run, batches)
            progress.iteration += 1
            progress.consumed_samples += result.num_samples
            metrics.record(result)
            nan_check.record(result)
            ends = progress.iteration == run.num_iterations or _due(progress.iteration, config.exit_interval)
            called_off = stopping.wanted()
            saving.advance()
            saves = ends or called_off or saving.due()
            if saves or _due(progress.iteration, run.config.logging.log_interval):
                save_lock.require(run.config.checkpoint.save, run.runtime.rank, hosts)
                metrics.log()
                if nan_check.look(before_save=saves):  # the run is back at a checkpoint
                    _close(batches)
                    metrics.go_back()
                    events.note(run, "rollback")
                    batches = _batches(run, metrics)
                    continue
                collect_garbage()
                metrics.restart_clock()
            if _due(progress.iteration, config.check_replicas_interval):
                replicas.check(run)
                metrics.restart_clock()
            if saves:
                saving.save(last=ends or called_off)
                metrics.restart_clock()
            if called_off:  # little time is left; what is due is evaluated when the run is continued
                stopping.saved()
                break
            saving.evaluated(evaluate_due(run, metrics))
            if ends:
                break
    run.where.at("closing")
    _close(batches)
    if stopping.signal_name is None:
        events.note(run, "end")
    return stopping.signal_name


def _batches(run: Run, metrics: Metrics) -> Stream | None:
    """The micro-batches of the next iteration and on."""
    samples, first = run.datasets.train, run.progress.consumed_samples
    return metrics.timed(run.micro_batches(samples, first, run.num_microbatches_at))


def _close(batches: Stream | None) -> None:
    """Stop reading ahead."""
    if batches is not None:
        batches.close()


def _due(iteration: int, interval: int | None) -> bool:
    """Whether something that happens every `interval` iterations happens now."""
    return interval is not None and iteration % interval == 0
