"""The `logging` section: what is told, where."""

from __future__ import annotations

from dataclasses import dataclass

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is told, where."""

    log_interval: int = option(10, "Iterations between log lines.", minimum=1)
    output_dir: str | None = option(
        None, "Folder for metrics.jsonl, config.yaml and exit.json; --save if not given.", example="runs/a"
    )
    peak_tflops: float | None = option(
        None, "Peak TFLOP/s of one device for MFU, where the device is not known to us.", example=989.0, above=0
    )
    progress_bar: bool = option(True, "A progress bar below the log lines, if stderr is a terminal.")
    tensorboard_dir: str | None = option(
        None, "Folder for TensorBoard's event files; needs tensorboard.", example="runs/a/tensorboard"
    )
    wandb_project: str | None = option(None, "Project of Weights & Biases to log to; needs wandb.", example="contextlm")
    wandb_exp_name: str | None = option(None, "Name of the run there; W&B's choice if not given.", example="a")
    wandb_save_dir: str | None = option(
        None, "Folder for W&B's own files; --output-dir if not given.", example="runs/a"
    )
    mlflow_experiment: str | None = option(None, "Experiment of MLflow to log to; needs mlflow.", example="contextlm")
    mlflow_tracking_uri: str | None = option(
        None, "MLflow's server or folder; MLflow's own choice if not given.", example="http://localhost:5000"
    )
    profile: bool = option(
        False, "Profile some iterations: trace_rankN.json.gz in --output-dir, for Perfetto, and a table."
    )
    profile_step_start: int = option(10, "Profile the iterations after this one ...", minimum=0)
    profile_step_end: int = option(12, "... up to this one.", minimum=1)
    profile_ranks: tuple[str, ...] = option(("0",), "Ranks that are profiled.")
