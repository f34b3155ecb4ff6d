"""What the ranks of a replica test do; run by the pool."""

from __future__ import annotations

from typing import Any


def drift(
    folder: str, steps: int, values: dict[str, Any], unmarked: str | None = None, nudged: str | None = None
) -> list[str]:
    """Train from the weights of a checkpoint, and say which copies of a weight differ.

    Args:
        folder: the checkpoint.
        steps: how many iterations.
        values: of the configuration.
        unmarked: sabotage: gradients of weights with this in their name are not summed over tensor-parallel ranks.
        nudged: sabotage: on the last rank the weight whose name ends so is changed in its last bit.
    """
    from contextlm.training import replicas
    from contextlm.training.step import train_step
    from tests.distributed.runs import load_weights, small_run

    with small_run("gpt2", lr=1e-3, **values) as run:
        load_weights(run, folder)
        weights = [entry for part in run.language_model for entry in part.named_parameters()]
        for name, weight in weights if unmarked is not None else ():
            if unmarked in name:
                weight.sequence_parallel = False
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        for _ in range(steps):
            train_step(run, batches)
        if batches is not None:
            batches.close()
        if nudged is not None and run.layout.is_last_rank:
            (weight,) = (weight for name, weight in weights if name.endswith(nudged))
            first = weight.data.flatten()[:1]
            first.copy_(first.nextafter(first.new_tensor(9.0)))
        return replicas.differences(run)


def check_in_the_loop(values: dict[str, Any], nudge_rank: int | None) -> str:
    """Run the training loop with `--check-replicas-interval 2`; returns what it raised, if anything."""
    import torch

    from contextlm.training.replicas import ReplicasDiffer
    from contextlm.training.train import train
    from tests.distributed.runs import small_run

    with small_run("gpt2", check_replicas_interval=2, eval_iters=0, log_interval=1, train_iters=2, **values) as run:
        if torch.distributed.get_rank() == nudge_rank:
            weights = dict(entry for part in run.language_model for entry in part.named_parameters())
            next(weight for name, weight in weights.items() if name.endswith("gate")).data += 0.5
            run.optimizer.reload_model_params()
        try:
            train(run)
        except ReplicasDiffer as error:
            return str(error)
        return ""
