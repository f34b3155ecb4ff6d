"""Checks of what an iteration that goes wrong leads to, and of iterations that are to be skipped."""

from __future__ import annotations

from contextlm.config.schema import Config


def skipping_problems(config: Config) -> list[str]:
    """What contradicts itself about NaN, spikes and skipped iterations."""
    training, checkpoint, problems = config.training, config.checkpoint, []
    if not training.check_for_nan_in_loss_and_grad:
        given = [f"--on-nan {training.on_nan}"] * (training.on_nan != "skip") + ["--skip-spikes"] * training.skip_spikes
        problems += [
            f"{flag}: --no-check-for-nan-in-loss-and-grad looks at nothing; drop one of the two" for flag in given
        ]
    if training.on_nan == "rollback" and None in (checkpoint.save, checkpoint.save_interval):
        problems.append("--on-nan rollback: needs checkpoints to go back to; add --save and --save-interval")
    words = training.iterations_to_skip
    bad = [word for word in words if not (word.isascii() and word.isdigit() and int(word) > 0)]
    if bad:
        return [*problems, f"--iterations-to-skip {' '.join(bad)}: no iteration; give whole numbers >= 1"]
    late = [word for word in words if training.train_iters is not None and int(word) > training.train_iters]
    if late and not training.skip_train:
        problems.append(
            f"--iterations-to-skip {' '.join(late)}: after the last one, --train-iters {training.train_iters}; drop it"
        )
    return problems
