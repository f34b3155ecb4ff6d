"""What the ranks of a test of what follows a NaN do; run by the pool."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

GIVEN = {"eval_iters": 0, "log_interval": 2, "save_interval": 4, "train_iters": 8, "micro_batch_size": 1}


def train(folder: str, values: dict[str, Any], bad: dict[int, int], rank: int | None = None) -> dict[str, Any]:
    """Train in `folder`; in some iterations one rank's activations are NaN.

    Args:
        folder: where to save and to resume from.
        values: of the configuration.
        bad: how often each of them is so; after a rollback an iteration is run again.
        rank: the one; all if None.

    Returns:
        `fault` what the loop raised, if anything; `iteration` where it ended; `said` what the last rank printed.
    """
    from contextlm.training import metrics
    from contextlm.training import train as loop
    from contextlm.training.faults import Fault
    from tests.distributed.runs import small_run

    times: Counter[int] = Counter()

    def step(run: Any, batches: Any) -> Any:
        n = run.progress.iteration + 1
        times[n] += 1
        is_bad = times[n] <= bad.get(n, 0) and rank in (None, run.runtime.rank)
        with _spoilt(run) if is_bad else contextlib.nullcontext():
            return train_step(run, batches)

    train_step, said = loop.train_step, list[str]()
    given = GIVEN | {"global_batch_size": 4, "lr": 1e-2, "hidden_dropout": 0.1} | values
    with (
        small_run("gpt2", save=folder, load=folder, **given) as run,
        mock.patch.object(loop, "train_step", step),
        mock.patch.object(metrics.ProgressBar, "print", lambda self, text: said.append(text)),
    ):
        fault = None
        try:
            loop.train(run)
        except Fault as error:
            fault = error.what, error.remedy
        return {"fault": fault, "iteration": run.progress.iteration, "said": said}


@contextlib.contextmanager
def _spoilt(run: Any) -> Iterator[None]:
    mlp = next(module for name, module in run.language_model[0].named_modules() if name.endswith("layers.0.mlp"))
    hook = mlp.register_forward_hook(lambda module, inputs, output: (output[0] * float("nan"), *output[1:]))
    yield
    hook.remove()


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def facts(folder: Path, iteration: int) -> dict[str, Any]:
    """What run.json of a checkpoint says of skipped iterations."""
    run = json.loads((folder / f"iter_{iteration:07d}" / "run.json").read_text())
    return {name: run[name] for name in ("skipped_iterations", "skipped_in_all")}


def dump(folder: Path, iteration: int) -> dict[str, Any]:
    """What is told of a skipped iteration."""
    return json.loads((folder / "bad_steps" / f"iteration_{iteration:07d}.json").read_text())
