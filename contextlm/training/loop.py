"""The loop: from a checked configuration to a trained model.

`pretrain` opens what a run needs and closes it again; `train` is the loop itself. Read next: `step.py`.
"""

from __future__ import annotations

from contextlm.config.schema import Config
from contextlm.parallel import runtime
from contextlm.training import exit_status


def pretrain(config: Config) -> None:
    """Train as configured, or continue from a checkpoint; the job's exit status is written beside the metrics."""
    # megatron-core's modules look at the device when they are imported, so they are imported after it is chosen.
    with exit_status.recorded(config.output_dir), runtime.start(config.parallel) as process:
        from contextlm.parallel.layout import model_parallel

        with model_parallel(config.parallel) as layout:
            from contextlm.training.setup import setup
            from contextlm.training.train import train

            train(setup(config, process, layout))
