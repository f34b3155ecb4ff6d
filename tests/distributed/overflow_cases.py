"""What the ranks of an overflow test do; run by the pool."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple
from unittest import mock

import torch

from tests.distributed.runs import small_run

SCALE = 16.0  # losses are summed over tokens: at 1024 gradients overflow by themselves


class Iteration(NamedTuple):
    """What a rank did in one of them; the loss scale is the one after it."""

    skipped: bool
    loss_scale: float
    changed_weights: bool


def overflow(values: dict[str, Any], rank: int, alone: bool = False) -> tuple[list[Iteration], list[str]]:
    """Three iterations in fp16, in the second of which one rank has one gradient that is inf.

    Args:
        values: of the configuration.
        rank: the one.
        alone: sabotage: in the second iteration, the last then, no rank hears of the others' overflow.

    Returns:
        the iterations, and the copies of weights that differ.
    """
    from contextlm.training import replicas, step

    fp16 = {"fp16": True, "initial_loss_scale": SCALE, "hysteresis": 1, "micro_batch_size": 2, "global_batch_size": 4}
    compute_gradients, done = step.compute_gradients, list[Iteration]()

    def with_an_inf(run: Any, *arguments: Any) -> Any:
        sums = compute_gradients(run, *arguments)
        if len(done) == 1 and run.runtime.rank == rank:
            weights = dict(run.language_model[0].named_parameters())
            matrix = next(weight for name, weight in weights.items() if name.endswith("mlp.linear_fc1.weight"))
            matrix.main_grad[3, 5] = torch.inf  # no other rank holds it
        return sums

    # All sums of the optimizer's step: a rank that skips would leave its peers waiting for the gradient norm.
    deaf = mock.patch.object(torch.distributed, "all_reduce", lambda *arguments, **options: None)
    with small_run("gpt2", lr=1e-3, **fp16, **values) as run:
        update = step.update

        def maybe_deaf_update(*arguments: Any) -> Any:
            with deaf if alone and len(done) == 1 else contextlib.nullcontext():
                return update(*arguments)

        weights = [*run.model[0].parameters(), *run.optimizer.chained_optimizers[0].get_parameters()]  # and masters
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        with (
            mock.patch.object(step, "compute_gradients", with_an_inf),
            mock.patch.object(step, "update", maybe_deaf_update),
        ):
            for _ in range(2 if alone else 3):
                before = [weight.detach().clone() for weight in weights]
                result = step.train_step(run, batches)
                changed = not all(map(torch.equal, before, weights))
                done.append(Iteration(bool(result.skipped), run.optimizer.get_loss_scale().item(), changed))
        if batches is not None:
            batches.close()
        return done, replicas.differences(run)
