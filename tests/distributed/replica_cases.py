"""What the ranks of a replica test do; run by the pool."""

from __future__ import annotations

from typing import Any


def drift(steps: int, values: dict[str, Any], fault: str | None = None) -> list[str]:
    """Train, and say which copies of a weight differ.

    Args:
        steps: how many iterations.
        values: of the configuration.
        fault: "unmarked": the norms' gradients are not summed over tensor-parallel ranks; "nudged": one rank's final
            norm is changed in its last bit.
    """
    from contextlm.training import replicas
    from contextlm.training.step import train_step
    from tests.distributed.runs import small_run
    from tests.random_weights import randomize

    with small_run("gpt2", lr=1e-3, **values) as run:
        if run.layout.groups.pp.size() == run.layout.groups.tp.size() == 1:
            for part in run.language_model:
                randomize(part)
            run.optimizer.reload_model_params()
        if fault == "unmarked":
            for part in run.language_model:
                for name, weight in part.named_parameters():
                    if "layernorm" in name:
                        weight.sequence_parallel = False
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        for _ in range(steps):
            train_step(run, batches)
        if batches is not None:
            batches.close()
        if fault is not None and fault.startswith("nudged") and run.layout.is_last_rank:
            part = run.language_model[-1]
            weight = part.output_layer.weight if fault.endswith("embedding") else part.decoder.final_layernorm.weight
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
