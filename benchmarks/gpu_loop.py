"""The whole loop beside the bare step: what the loader, the loop with its log line and metrics, and an asynchronous
checkpoint cost, each on top of what comes before it.

The bare step trains on one batch that lies on the device. The loop is `train` as a job runs it, watchdog included, on
the same model; its clock begins after the warm-up, and ends before the iteration after the last.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from contextlm.checkpoints import checkpoint_folder, save_lock
from gpu_clock import Budget, synchronize, window
from gpu_trainers import ours, stepping
from table import table

BARE, LOADER, LOOP, SAVES = "bare step", "+ loader", "+ loop, log line, metrics", "+ asynchronous checkpoint"
PARTS = (BARE, LOADER, LOOP, SAVES)
ROUNDS = 2
WARM_UP = 5
LOG_INTERVAL = 100  # or half a window, if that is less


def missing(found: Mapping[str, Any] | None) -> int:
    """Rounds that are still to be measured."""
    return ROUNDS - len(found["rounds"] if found else ())


def measure(
    run: Any, seconds: float, budget: Budget, found: MutableMapping[str, Any], keep: Callable[[], None]
) -> None:
    """All parts in turns; whole rounds only are kept.

    Args:
        run: built, of one process.
        seconds: of a window.
        found: {"rounds": [seconds of an iteration by part], ...}.
        keep: writes the results.
    """
    while missing(found) > 0 and budget.allows(len(PARTS) * (seconds + 2)):
        rate = bare(run, seconds)
        iterations = max(2, round(rate * seconds))
        plan = {
            "iterations": iterations,
            "log_interval": min(LOG_INTERVAL, iterations // 2),
            "save_interval": WARM_UP + iterations // 2 + 1,
        }
        with ours(run) as step:
            times = {BARE: 1 / rate, LOADER: 1 / window(step, seconds)}
        times[LOOP], _ = through_the_loop(run, plan, saves=False)
        times[SAVES], plan["saved_in_time"] = through_the_loop(run, plan, saves=True)
        found["rounds"].append(times)
        found.update(plan)
        keep()


def bare(run: Any, seconds: float) -> float:
    """Iterations a second on one batch."""
    with contextlib.closing(run.micro_batches(run.datasets.train, 0, run.num_microbatches)) as batches:
        batch = next(batches).to(run.runtime.device)
    step = stepping(run, itertools.repeat(batch))
    window(step, seconds / 10)
    return window(step, seconds)


class _WindowIsOver(Exception):
    """Leaves the loop without its last, awaited save."""


def through_the_loop(run: Any, plan: Mapping[str, int], *, saves: bool) -> tuple[float, bool]:
    """Seconds of an iteration of `train`, and whether a checkpoint was complete before the clock stopped."""
    from contextlm.parallel.companions import companions
    from contextlm.training import train
    from contextlm.training.setup import Progress
    from contextlm.training.watchdog import Watchdog

    step, times, count = train.train_step, [], itertools.count()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)

        def counted(*arguments: Any) -> Any:
            if next(count) in (WARM_UP, WARM_UP + plan["iterations"]):
                synchronize()
                times.append(time.perf_counter())
            if len(times) == 2:
                raise _WindowIsOver
            return step(*arguments)

        job = replace(run, config=_config(run.config, folder, plan, saves=saves), progress=Progress())
        process = run.runtime
        with (
            save_lock.held(job.config.checkpoint.save),
            Watchdog(job.config, companions(process.rank, process.world_size, process.attempt), job.where, name),
            contextlib.redirect_stdout(io.StringIO()),
            mock.patch.object(train, "train_step", counted),
            contextlib.suppress(_WindowIsOver),
        ):
            train.train(job)
        # Checked after the loop gave up what was still being written.
        is_complete = checkpoint_folder.find(folder) is not None
    began, ended = times
    return (ended - began) / plan["iterations"], is_complete


def _config(config: Any, folder: Path, plan: Mapping[str, int], *, saves: bool) -> Any:
    checkpoint = replace(
        config.checkpoint,
        save=str(folder) if saves else None,
        save_interval=plan["save_interval"] if saves else None,
        async_save=saves,
    )
    logging = replace(config.logging, output_dir=str(folder), log_interval=plan["log_interval"])
    return replace(config, checkpoint=checkpoint, logging=logging)


def shown(found: Mapping[str, Any]) -> str:
    """Milliseconds of an iteration, and the overhead over the bare step in the same round."""
    rounds: Sequence[Mapping[str, float]] = found["rounds"]
    rows = []
    for before, part in zip((None, *PARTS), PARTS, strict=False):
        overheads = [times[part] / times[BARE] - 1 for times in rounds]
        own = [times[part] / times[before or part] - 1 for times in rounds]
        milliseconds = 1e3 * statistics.median(times[part] for times in rounds)
        spread = f"{min(overheads):+.2%}..{max(overheads):+.2%}"
        rows.append((part, f"{milliseconds:.3f}", f"{statistics.median(own):+.2%}", spread))
    first, *others = ((times[SAVES] - times[LOOP]) * found["iterations"] for times in rounds)
    cost = statistics.median(others or [first])
    once = f", the first, which takes host memory, {first:.2f} s" if others else ""
    late = "" if found["saved_in_time"] else "; it was not complete when the window ended"
    return (
        f"{table(('trained by', 'ms', 'by itself', 'in all'), rows)}\n"
        f"{len(rounds)} rounds, {found['iterations']} iterations a window, a log line each {found['log_interval']}, "
        f"one checkpoint in the middle (iteration {found['save_interval']}){late}\n"
        f"a checkpoint costs {cost:.2f} s of training: 1% where there is one in {max(0, cost) * 100:.0f} s{once}"
    )
