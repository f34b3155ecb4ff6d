"""What the ranks of a layout test do; run by the pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.distributed.runs import load_weights, small_run
from tests.random_weights import randomize

STEPS = 5


def save_random_weights(folder: str, backbone: str, values: dict[str, Any]) -> None:
    """The shared checkpoint: one process, all weights random and non-zero."""
    from contextlm.checkpoints import saving
    from contextlm.training.step import train_step

    with small_run(backbone, **values, save=folder) as run:
        randomize(run.language_model[0])
        run.optimizer.reload_model_params()
        # The optimizer must have a state to save; nobody loads it.
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        weights = [p.detach().clone() for p in run.model[0].parameters()]
        train_step(run, batches)
        for parameter, weight in zip(run.model[0].parameters(), weights, strict=True):
            parameter.data.copy_(weight)
        saving.save(run, lambda text: None)


def train(
    folder: str, backbone: str, values: dict[str, Any], sabotage: Callable[[Any], None] | None = None
) -> dict[str, Any]:
    """Five optimizer steps from the shared checkpoint: losses, gradient norms, the head's first gradients."""
    from contextlm.training import replicas
    from contextlm.training.optimizer import apply_schedule
    from contextlm.training.step import compute_gradients
    from contextlm.training.update import update

    with small_run(backbone, **values) as run:
        load_weights(run, folder)
        if sabotage is not None:
            sabotage(run)
        batches = run.micro_batches(run.datasets.train, 0, run.num_microbatches)
        losses, norms, gradients = [], [], {}
        for step in range(STEPS):
            loss = compute_gradients(run, batches).loss
            if step == 0:
                gradients = head_gradients(run)
            apply_schedule(run.config, run.optimizer, step + 1)
            norms.append(update(run, loss).grad_norm.item())
            losses.append(loss.item())
        if batches is not None:
            batches.close()
        return {
            "losses": losses if run.layout.is_last_stage else None,
            "norms": norms,
            "head": gradients,
            "replicas": replicas.differences(run),
        }


def head_gradients(run: Any) -> dict[str, np.ndarray]:
    """The whole gradient of every head parameter, by its name in a checkpoint; empty on other stages."""
    groups = run.layout.groups
    (optimizer,) = run.optimizer.chained_optimizers
    buffered = not optimizer.optimizer.owners
    if run.config.parallel.use_distributed_optimizer and buffered:
        for buffer in (buffer for part in run.model for buffer in part.buffers):
            for bucket in buffer.buckets:  # each data-parallel rank has reduced its own shard
                shard = bucket.grad_data.view(groups.dp.size(), -1)[groups.dp.rank()].clone()
                torch.distributed.all_gather_into_tensor(bucket.grad_data, shard, group=groups.dp)
    scale = run.optimizer.get_loss_scale().item()
    if getattr(run.model[0], "keeps_sums", False):  # over tokens, where the optimizer's kernel divides
        scale = scale / run.model[0].gradient_factor.item()
    gradients = {}
    for name, parameter in (entry for part in run.language_model for entry in part.named_parameters()):
        if "context_head." not in name:
            continue
        gradient = (parameter.main_grad if buffered else parameter.grad).float() / scale
        if getattr(parameter, "tensor_model_parallel", False) and groups.tp.size() > 1:
            parts = [torch.empty_like(gradient) for _ in range(groups.tp.size())]
            torch.distributed.all_gather(parts, gradient, group=groups.tp)
            gradient = torch.cat(parts, dim=parameter.partition_dim)
        gradients[name.split("context_head.")[1]] = gradient.cpu().numpy()
    return gradients


def keep_shares(run: Any) -> None:
    """Sabotage: under sequence parallelism each rank takes its tokens for the whole sequence."""
    from contextlm.model.context_head import heads

    for head in heads(run.language_model):
        head.exchange.is_split = False


def keep_gradients(run: Any) -> None:
    """Sabotage: under sequence parallelism each rank keeps the gradient of its tokens' predictions to itself."""
    from contextlm.model.context_head import heads

    for head in heads(run.language_model):
        head.exchange.to_every_part = lambda prediction_CBH: prediction_CBH


def cross_sends(run: Any) -> None:
    """Sabotage: an interleaved pipeline sends as one that is not."""
    run.language_model[0].config.overlap_p2p_comm = False
    run.language_model[0].config.batch_p2p_comm = True


def forget_documents(run: Any) -> None:
    """Sabotage: the last stage does not look where documents begin."""
    ends = run.document_ends
    if run.layout.is_last_stage:
        forgetful = dataclasses.replace(ends, reset_position_ids=False, reset_attention_mask=False)
        run.__dict__["document_ends"] = forgetful


def score_ends(run: Any) -> None:
    """Sabotage: on one data-parallel rank what is predicted from an end of document counts."""
    if run.layout.data_rank == 1:
        run.__dict__["document_ends"] = dataclasses.replace(run.document_ends, eod_mask_loss=False)


def unmask_padding(run: Any) -> None:
    """Sabotage: score the padded vocabulary."""
    if run.layout.is_last_stage:
        run.language_model[-1].true_vocab_size = 10**9
