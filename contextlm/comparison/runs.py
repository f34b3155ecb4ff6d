"""The runs of a study: an arm with a seed, its folder, and how far it is.

    FOLDER/data/                     the tokens, if the study makes them
    FOLDER/runs/gated-seed1/         what --save of that run holds, and
        run.yaml                     its whole configuration, with places relative to FOLDER
        log.txt                      what it printed

A run is the command `python pretrain_contextlm.py --config runs/gated-seed1/run.yaml` in FOLDER; the same command
resumes it. Read next: `jobs.py`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contextlm import atomic_files
from contextlm.analysis.run_record import differences, read_run
from contextlm.checkpoints.checkpoint_folder import TRACKER
from contextlm.child_processes import tail
from contextlm.comparison.arms import Arm
from contextlm.comparison.study import Study
from contextlm.config import Config, dump, load
from contextlm.config.schema import DataConfig, LoggingConfig

# Options that change nothing about the weights and the last validation loss of a run: what is told and saved, and what
# is evaluated besides.
_FREE = {field.name for field in dataclasses.fields(LoggingConfig)} | {
    "save_interval", "eval_interval", "eval_context_zeroed", "check_replicas_interval", "data_cache_path",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm trained with one seed.

    Attributes:
        study_folder: where its command runs.
        config: its whole configuration.
    """

    arm: Arm
    seed: int
    study_folder: Path
    config: Config

    @property
    def name(self) -> str:
        """Names its folder."""
        return f"{self.arm.name}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Checkpoints, metrics, log."""
        return self.study_folder / "runs" / self.name

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / "log.txt"

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return self.config.training.train_iters or 0

    def words(self) -> tuple[str, ...]:
        """The words after `pretrain_contextlm.py`."""
        return ("--config", f"runs/{self.name}/run.yaml")

    def begin(self) -> None:
        """Write the configuration that the command reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write_bytes(self.folder / "run.yaml", dump(self.config).encode())

    def forget(self) -> None:
        """Remove all that the run has made."""
        shutil.rmtree(self.folder)

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Options in which what lies in the folder is not this run: (there, here); none if nothing is there."""
        file = self.folder / "run.yaml"
        if not file.exists():
            return {}
        found = differences(_flat(load(file)), _flat(self.config))
        return {name: values for name, values in found.items() if name not in _FREE}

    def saved_iteration(self) -> int:
        """Where the run would continue: the iteration of its checkpoint, 0 without one."""
        text = tail(self.folder / TRACKER).strip()
        return int(text) if text.isdigit() else 0

    def latest_iteration(self) -> int:
        """The last iteration that is logged."""
        for line in reversed(tail(self.folder / "metrics.jsonl").splitlines()):
            try:
                return int(json.loads(line)["iteration"])
            except (ValueError, KeyError, TypeError):  # cut by `tail`, or being written
                continue
        return 0

    def is_finished(self) -> bool:
        """Whether the last checkpoint and the last validation loss are there."""
        return self.saved_iteration() >= self.iterations and self.last_evaluation() is not None

    def last_evaluation(self) -> dict[str, Any] | None:
        """The validation line of the last iteration; its `lm_loss` is None where the run diverged."""
        if not self.folder.is_dir():
            return None
        lines = [
            line
            for line in read_run(self.folder).evaluations
            if line["split"] == "validation" and line["iteration"] == self.iterations
        ]
        return lines[-1] if lines else None

    def loss(self) -> float | None:
        """The last validation loss in nats per token; None where there is none, or no finite one."""
        line = self.last_evaluation()
        loss = None if line is None else line["lm_loss"]
        return float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None


def plan_runs(study: Study, folder: Path, data: DataConfig) -> list[Run]:
    """All runs, seed by seed, so that what is finished early can be compared.

    Args:
        data: dataset and tokenizer, with places relative to `folder` or absolute.
    """
    return [Run(arm, seed, folder, _config(arm, seed, data)) for seed in study.seeds for arm in study.arms.values()]


def changed_runs(runs: Sequence[Run]) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Runs that were begun with other options, by name."""
    return {run.name: found for run in runs if (found := run.changes())}


def _config(arm: Arm, seed: int, data: DataConfig) -> Config:
    place = f"runs/{arm.name}-seed{seed}"
    config = arm.config
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, seed=seed),
        data=dataclasses.replace(data, split=config.data.split),
        checkpoint=dataclasses.replace(config.checkpoint, save=place, load=place),
    )


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for value in dataclasses.asdict(config).values():
        flat.update(value if isinstance(value, dict) else {})
    return flat
