"""The loop: from a checked configuration to a trained model.

`pretrain` opens what a run needs and closes it again; `train` is the loop itself. Read next: `step.py`.
"""

from __future__ import annotations

from contextlm.checkpoints import save_lock
from contextlm.config.schema import Config
from contextlm.parallel import runtime
from contextlm.parallel.companions import companions
from contextlm.preflight import host_checks
from contextlm.training import exit_status, faults, out_of_memory
from contextlm.training.watchdog import Watchdog
from contextlm.training.whereabouts import Whereabouts


def pretrain(config: Config, preflight_only: bool = False) -> int:
    """Train as configured, or continue from a checkpoint; the job's exit status is written beside the metrics.

    Args:
        preflight_only: look whether the run could begin, and leave it at that.

    Returns:
        the exit status: 0, or 75 after a signal and a save.
    """
    # What only evaluates, or looks, leaves alone how the run ended that it is about.
    record_in = None if config.training.skip_train or preflight_only else config.output_dir
    saves_in = None if config.training.skip_train else config.checkpoint.save
    where = Whereabouts()
    with faults.in_words(), save_lock.held(saves_in) as refusals, exit_status.recorded(record_in):
        # Before any process group exists: every mistake is every rank's own, and found in a second.
        with out_of_memory.in_words(config, where):
            passed = host_checks.check(config, where, refusals)
            if not preflight_only:
                passed.datasets.prepare(_first_samples(config, passed.first_sample))
        with (
            runtime.start(config.parallel) as process,
            exit_status.failures_noted(record_in),
            Watchdog(config, companions(process.rank, process.world_size, process.attempt), where, record_in),
        ):
            # megatron-core looks at the device when it is imported, so it is imported after that was chosen.
            from contextlm.parallel.layout import model_parallel

            with (
                model_parallel(config.parallel) as layout,
                out_of_memory.in_words(config, where, passed.tokenizer.vocab_size, layout.pipeline_rank),
            ):
                from contextlm.preflight import rank_checks

                rank_checks.check(config, passed, process, layout)
                if preflight_only:
                    return 0
                from contextlm.training.evaluation_sets import evaluate_only
                from contextlm.training.setup import setup
                from contextlm.training.train import train

                run = setup(config, process, layout, passed.tokenizer, passed.datasets, where)
                if config.training.skip_train:
                    evaluate_only(run)
                    return 0
                return 0 if train(run) is None else exit_status.PREEMPTED


def _first_samples(config: Config, first: int) -> range:
    """The training sample with which a run begins; none without training."""
    return range(0) if config.training.skip_train else range(first, first + 1)
