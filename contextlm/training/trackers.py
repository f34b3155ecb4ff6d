"""Where the lines of `metrics.jsonl` also go, if asked: TensorBoard, Weights & Biases, MLflow.

Each is a small class with `log` and `close`, and is imported only when its flag is given. A tracker that fails is
told of once and never stops the training. What a run is called there is kept in `trackers.json` beside the metrics, so
that a resumed run goes on in the same one; a run that only evaluates is one of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from contextlm import atomic_files
from contextlm.analysis.measures import POSITIONS_TOLD
from contextlm.config.schema import Config


class Tracker(Protocol):
    """What takes numbers by name."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of an iteration; in a resumed run steps may go back."""

    def close(self, *, failed: bool) -> None:
        """Nothing more comes, because the run failed or because it is done or stops."""


class TensorBoard:
    """Event files in `--tensorboard-dir`; what a stopped run wrote after its checkpoint is hidden on resuming."""

    def __init__(self, config: Config, iteration: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge_step = None if iteration is None else iteration + 1
        self.writer = SummaryWriter(config.logging.tensorboard_dir, purge_step=purge_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar for each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self.writer.close()


class WeightsAndBiases:
    """A run of `--wandb-project`; online, offline or off as W&B's own environment variables say."""

    def __init__(self, config: Config, iteration: int | None) -> None:
        import wandb

        settings = config.logging
        name = RunName(config, iteration, f"W&B {settings.wandb_project}")
        self.run = wandb.init(
            project=settings.wandb_project,
            name=settings.wandb_exp_name,
            dir=settings.wandb_save_dir or config.output_dir,
            config=dataclasses.asdict(config),
            id=name.known,
            resume="allow",
        )
        name.keep(self.run.id)
        # W&B drops what goes back in its own count of steps, as a resumed run does.
        self.run.define_metric("*", step_metric="iteration")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """All at one step."""
        self.run.log({"iteration": step, **values})

    def close(self, *, failed: bool) -> None:
        """Upload what is left."""
        self.run.finish(exit_code=int(failed))


class MLflow:
    """A run of `--mlflow-experiment`; a server that is slow or gone does not hold up the training."""

    def __init__(self, config: Config, iteration: int | None) -> None:
        # Left to itself it waits more than four minutes for a server that is not there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        import mlflow

        self.mlflow = mlflow
        if config.logging.mlflow_tracking_uri is not None:
            mlflow.set_tracking_uri(config.logging.mlflow_tracking_uri)
        mlflow.set_experiment(config.logging.mlflow_experiment)
        name = RunName(config, iteration, f"MLflow {config.logging.mlflow_experiment}")
        name.keep(mlflow.start_run(run_id=name.known).info.run_id)
        if name.known is None:  # MLflow lets no parameter change
            sections = [part for part in dataclasses.asdict(config).values() if isinstance(part, dict)]
            mlflow.log_params({name: value for part in sections for name, value in part.items()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """All at one step, from a thread of MLflow's."""
        self.mlflow.log_metrics(dict(values), step=step, synchronous=False)

    def close(self, *, failed: bool) -> None:
        """Send what is left."""
        try:
            self.mlflow.flush_async_logging()
        finally:
            self.mlflow.end_run("FAILED" if failed else "FINISHED")


class RunName:
    """How a tracker calls this run.

    Args:
        config: of the run.
        iteration: the run continues after it; None if it only evaluates.
        place: the tracker and its project.

    Attributes:
        known: what it was called before it was resumed; None if it is new there.
    """

    def __init__(self, config: Config, iteration: int | None, place: str) -> None:
        self.place = place
        self.path = None if config.output_dir is None or iteration is None else Path(config.output_dir, "trackers.json")
        self.all: dict[str, str] = {}
        if self.path is not None and self.path.exists():
            self.all = json.loads(self.path.read_text())
        self.known = self.all.get(place) if iteration else None

    def keep(self, name: str) -> None:
        """Write it down, if it is new."""
        if self.path is not None and name != self.known:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_files.write_json(self.path, self.all | {self.place: name})


class Trackers:
    """The trackers that the flags ask for, which may fail.

    Args:
        config: of the run.
        iteration: the run continues after it; None if it only evaluates, and hides nothing of what is there.
        warn: told, once for each tracker, that it failed.
    """

    def __init__(self, config: Config, iteration: int | None, warn: Callable[[str], None]) -> None:
        asked = {
            TensorBoard: config.logging.tensorboard_dir,
            WeightsAndBiases: config.logging.wandb_project,
            MLflow: config.logging.mlflow_experiment,
        }
        self.warn, self.failed = warn, set[str]()
        opened = [self._try(kind.__name__, kind, config, iteration) for kind, value in asked.items() if value]
        self.open: list[Tracker] = [tracker for tracker in opened if tracker is not None]

    def log(self, line: Mapping[str, Any]) -> None:
        """Pass on the numbers of a line of metrics.jsonl."""
        for tracker in self.open:
            self._try(type(tracker).__name__, tracker.log, line["iteration"], numbers(line))

    def close(self, *, failed: bool) -> None:
        """Close them all, and tell them whether the run failed."""
        for tracker in self.open:
            self._try(type(tracker).__name__, functools.partial(tracker.close, failed=failed))
        self.open = []

    def _try(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What the call gives; None where it fails, whatever a library or its network may raise."""
        try:
            return call(*arguments)
        except Exception as error:
            if name not in self.failed:
                self.failed.add(name)
                self.warn(f"warning: {name} failed, training goes on: {type(error).__name__}: {error}")
            return None


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by name, `training/lm_loss` or `validation/lm_loss`; of a short list, one by one."""
    found = {}
    for name, value in line.items():
        if not isinstance(value, tuple):
            entries = {name: value}
        else:
            entries = {f"{name}/{i}": entry for i, entry in enumerate(value) if len(value) <= POSITIONS_TOLD}
        found.update({key: entry for key, entry in entries.items() if isinstance(entry, int | float)})
    found.pop("iteration")
    return {f"{line.get('split', 'training')}/{name}": value for name, value in found.items()}
