"""What the ranks of a test of skipped updates do; run by the pool."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch

GIVEN = {"micro_batch_size": 1, "global_batch_size": 4, "lr": 1e-2, "hidden_dropout": 0.1}


class Trained(NamedTuple):
    """What a rank did, by iteration.

    Attributes:
        codes: why each was skipped, 0 where it was not.
        kept: whether weights, masters, moments and step were the same bits before and after it.
        losses: of the global batches; 0 on ranks that do not compute them.
        state: a hash of all of those in the end.
        is_finite: whether all of them are in the end.
        copies_differ: which copies of weights do.
    """

    codes: list[int]
    kept: list[bool]
    losses: list[float]
    state: str
    is_finite: bool
    copies_differ: list[str]


def train(
    values: dict[str, Any],
    what: str = "nothing",
    rank: int | None = None,
    at: int = 2,
    steps: int = 3,
    deaf: bool = False,
    window: tuple[int, int] | None = None,
    folder: str | None = None,
    from_folder: bool = False,
) -> Trained:
    """Some iterations, in one of which something happens on one rank.

    Args:
        values: of the configuration.
        what: "loss": its activations become NaN; "gradient": so do its gradients; "jump": they are 10,000 times as
            large; "element": one of its own is infinite when all have been summed.
        rank: where.
        at: in which iteration.
        steps: how many iterations.
        deaf: sabotage: in that iteration ranks do not hear of each other's numbers.
        window: length of the window of spikes, and how many values it needs.
        folder: where to save in the end.
        from_folder: begin with the checkpoint that is there.
    """
    from contextlm.checkpoints import loading, saving
    from contextlm.training import replicas, spikes, step
    from tests.distributed.runs import small_run

    given = GIVEN | values | ({} if folder is None else {"save": folder, "load": folder})
    length, least = (spikes.WINDOW, spikes.LEAST) if window is None else window
    codes, kept, losses = [], [], []
    with (
        mock.patch.object(spikes, "WINDOW", length),
        mock.patch.object(spikes, "LEAST", least),
        small_run("gpt2", **given) as run,
    ):
        if from_folder:
            loading.load(run, lambda text: None)
        batches = run.micro_batches(run.datasets.train, run.progress.consumed_samples, run.num_microbatches)
        for _ in range(steps):
            now = run.progress.iteration + 1 == at
            before = [tensor.clone() for tensor in state_of(run)]
            with contextlib.ExitStack() as stack:
                if now and rank in (None, run.runtime.rank):
                    stack.enter_context(_disturbed(run, what))
                if now and deaf:
                    stack.enter_context(_deaf(run))
                result = step.train_step(run, batches)
            after = state_of(run)
            same = len(before) == len(after) and all(map(torch.equal, before, after))
            codes.append(int(result.skipped))
            kept.append(same)
            losses.append(result.loss.item())
            run.progress.iteration += 1
            run.progress.consumed_samples += result.num_samples
        if batches is not None:
            batches.close()
        if folder is not None:
            saving.save(run, lambda text: None)
        state = state_of(run)
        digest = hashlib.sha256(b"".join(tensor.float().cpu().numpy().tobytes() for tensor in state)).hexdigest()
        is_finite = all(bool(tensor.isfinite().all()) for tensor in state)
        return Trained(codes, kept, losses, digest, is_finite, replicas.differences(run))


def state_of(run: Any) -> list[torch.Tensor]:
    """This rank's weights, masters and moments, and the step; all of them, whatever changes them."""
    (optimizer,) = run.optimizer.chained_optimizers
    inner = optimizer.optimizer
    masters = optimizer.get_parameters()
    moments = [moment for p in masters for moment in inner.state.get(p, {}).values()]
    # With an overlapped gather the weights of other ranks' share come with the next forward pass.
    weights = [] if run.config.parallel.overlap_param_gather else [w for part in run.model for w in part.parameters()]
    return [tensor.detach() for tensor in (*weights, *masters, *moments, inner.param_groups[0]["step"])]


@contextlib.contextmanager
def _disturbed(run: Any, what: str) -> Iterator[None]:
    from contextlm.training import step

    original = step.compute_gradients

    def with_an_inf(*arguments: Any) -> Any:
        sums = original(*arguments)
        _own_gradient(run)[0] = torch.inf
        return sums

    mlp = next(module for name, module in run.language_model[0].named_modules() if name.endswith("layers.0.mlp"))
    hook = mlp.register_forward_hook(_HOOKS[what]) if what in _HOOKS else None
    with mock.patch.object(step, "compute_gradients", with_an_inf if what == "element" else original):
        yield
    if hook is not None:
        hook.remove()


@contextlib.contextmanager
def _deaf(run: Any) -> Iterator[None]:
    """Inside, ranks decide by what they see themselves."""
    why = run.skipping.why

    def alone(*arguments: Any) -> torch.Tensor:
        with mock.patch.object(torch.distributed, "all_reduce", lambda *_, **__: None):
            return why(*arguments)

    with mock.patch.object(run.skipping, "why", alone):
        yield


def _own_gradient(run: Any) -> torch.Tensor:
    """The gradient of a matrix, or the share of it with which this rank updates: no other rank's optimizer reads it."""
    (optimizer,) = run.optimizer.chained_optimizers
    matrices = [p for name, p in run.language_model[0].named_parameters() if name.endswith("mlp.linear_fc1.weight")]
    if not run.config.parallel.use_distributed_optimizer:
        return matrices[0].main_grad.view(-1)
    own = next(p for p in matrices if p in optimizer.model_param_group_index_map)
    part = optimizer._get_model_param_range_map(own)["param"]
    return own.main_grad.view(-1)[part.start : part.end]


def _activations_are_nan(module: Any, inputs: Any, output: Any) -> Any:
    return output[0] * float("nan"), *output[1:]


def _gradients_times(factor: float) -> Callable[..., None]:
    return lambda module, inputs, output: output[0].register_hook(lambda gradient: gradient * factor) and None


_HOOKS: dict[str, Callable[..., Any]] = {
    "loss": _activations_are_nan,
    "gradient": _gradients_times(float("nan")),
    "jump": _gradients_times(1e4),
}
