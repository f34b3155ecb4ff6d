"""What the ranks of a test of an iteration's own work do; run by the pool."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from megatron.core.transformer import TransformerConfig

from contextlm.config.schema import Config
from tests.distributed.runs import small_run

WATCHED = (
    (torch.nn.Module, "train"), (torch.nn.Module, "modules"), (torch.nn.Module, "named_parameters"),
    (Config, "__init__"), (TransformerConfig, "__init__"),
)  # fmt: skip


def work_of_steps(values: dict[str, Any], planted: str | None = None) -> dict[str, int]:
    """Three iterations after a first one; how often each function of `WATCHED` was called in them.

    Args:
        values: of the configuration.
        planted: a method of the model, called in each iteration.
    """
    from contextlm.training.step import train_step

    found: Counter[str] = Counter()

    def counted(name: str, original: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return original(*args, **kwargs)

        return call

    given = {"micro_batch_size": 1, "global_batch_size": 4, "lr": 1e-3}
    with small_run("gpt2", **(given | values)) as run, contextlib.ExitStack() as stack:
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        train_step(run, batches)
        for kind, name in WATCHED:
            label = f"{kind.__name__}.{name}"
            stack.enter_context(mock.patch.object(kind, name, counted(label, getattr(kind, name))))
        for _ in range(3):
            train_step(run, batches)
            if planted is not None:
                getattr(run.model[0], planted)()
        if batches is not None:
            batches.close()
    return dict(found)


def modes_around_an_evaluation() -> list[tuple[bool, bool]]:
    """Of a model that trains and one that does not: its mode before and after an evaluation."""
    from contextlm.training.evaluation import evaluate

    found = []
    with small_run("gpt2", micro_batch_size=1, global_batch_size=1) as run:
        for mode in (True, False):
            run.model[0].train(mode)
            evaluate(run, run.datasets.validation, 1)
            found.append((mode, run.language_model[0].training))
    return found
