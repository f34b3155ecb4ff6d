"""The loop: from a checked configuration to a trained model.

`pretrain` opens what a run needs and closes it again; `train` is the loop itself. Read next: `step.py`.
"""

from __future__ import annotations

import os

from contextlm.checkpoints import checkpoint_folder, manifest
from contextlm.checkpoints.selection import choose
from contextlm.config.schema import Config
from contextlm.data.datasets import build_datasets
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError
from contextlm.parallel import runtime
from contextlm.training import exit_status, faults


def pretrain(config: Config) -> int:
    """Train as configured, or continue from a checkpoint; the job's exit status is written beside the metrics.

    Returns:
        the exit status: 0, or 75 after a signal and a save.
    """
    # What only evaluates leaves alone how the run ended that it evaluates.
    record_in = None if config.training.skip_train else config.output_dir
    with faults.in_words(), exit_status.recorded(record_in):
        # Before any process group exists: every mistake in the data is every rank's own, and found in a second.
        tokenizer = build_tokenizer(config.data, config.model.vocab_size)
        datasets = build_datasets(config, tokenizer, int(os.environ.get("WORLD_SIZE", "1")))
        if datasets.train is None and not config.training.skip_train:
            raise UserError(
                f"--split {config.data.document_split}: leaves nothing for training; give the first share more than 0"
            )
        datasets.prepare(_first_samples(config))
        with runtime.start(config.parallel) as process, exit_status.failures_noted(record_in):
            # megatron-core looks at the device when it is imported, so it is imported after that was chosen.
            from contextlm.parallel.layout import model_parallel

            with model_parallel(config.parallel) as layout:
                from contextlm.training.evaluation_sets import evaluate_only
                from contextlm.training.setup import setup
                from contextlm.training.train import train

                run = setup(config, process, layout, tokenizer, datasets)
                signal_name = evaluate_only(run) if config.training.skip_train else train(run)
                return 0 if signal_name is None else exit_status.PREEMPTED


def _first_samples(config: Config) -> range:
    """The training sample with which a run begins, after those that its checkpoint consumed; none without training."""
    given = config.checkpoint
    if config.training.skip_train:
        return range(0)
    resumes = given.load is not None and not given.finetune
    # All of its files are looked at later, by all ranks together.
    look = {"damage": manifest.incomplete, "may_fall_back": given.load_fallback}
    folder = choose(checkpoint_folder.candidates(given.load), lambda line: None, **look) if resumes else None
    first = 0 if folder is None else checkpoint_folder.read_run(folder)["consumed_samples"]
    return range(first, first + 1)
