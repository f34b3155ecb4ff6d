"""What the processes of a GPU test of documents do; run by the pool, of the CPU too."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch

from tests.distributed.causality_cases import random_tokens
from tests.distributed.runs import EOD, RandomSamples, small_run
from tests.random_weights import randomize
from tests.small_configs import VOCAB_SIZE


def _samples_with_ends(run: Any, batch: int) -> torch.Tensor:
    """Samples [batch, S + 1] on the host, in which many documents end."""
    samples = RandomSamples(run.config.model.seq_length, with_ends=True)
    return torch.stack([torch.from_numpy(samples.sample(n)) for n in range(batch)])


def in_documents(backbone: str, values: dict[str, Any]) -> dict[str, Any]:
    """Of random weights: logits, the gradient of the first layer's attention, calls of the kernel in a forward pass."""
    from contextlm.model import varlen_attention

    with small_run(backbone, **values) as run:
        model = run.language_model[0]
        randomize(model)
        batch = run.document_ends.batch(_samples_with_ends(run, 3), run.runtime.device)
        inputs_BS, positions_BS, documents = batch.inputs
        with mock.patch.object(varlen_attention, "attend", side_effect=varlen_attention.attend) as attend:
            logits_BSV = model(inputs_BS, positions_BS, None, packed_seq_params=documents)[..., :VOCAB_SIZE]
        weight = model.decoder.layers[0].self_attention.linear_qkv.weight
        loss = torch.nn.functional.cross_entropy(logits_BSV.float().flatten(0, 1), batch.labels_BS.flatten())
        (gradient,) = torch.autograd.grad(loss, [weight])
        return {
            "logits": logits_BSV.detach().float().cpu().numpy(),
            "gradient": gradient.float().cpu().numpy(),
            "kernel_calls": attend.call_count,
        }


def seen_across(backbone: str, values: dict[str, Any]) -> list[int]:
    """Where the first document may end so that a logit after it depends on it, over every phase of a chunk."""
    with small_run(backbone, **values) as run:
        model = run.language_model[0].eval()
        randomize(model)
        length = run.config.model.seq_length
        tokens_BS = random_tokens(run, length - 2, length).cpu()
        tokens_BS[tokens_BS == EOD] += 1
        rows = torch.arange(length - 2)
        tokens_BS[rows, rows + 1] = EOD
        first_BS = torch.arange(length) <= rows[:, None]
        other_BS = (tokens_BS + 1) % VOCAB_SIZE
        other_BS[other_BS == EOD] += 1
        changed_BS = torch.where(first_BS, other_BS, tokens_BS)

        def logits(tokens: torch.Tensor) -> torch.Tensor:
            inputs, positions, documents = run.document_ends.inputs(tokens, tokens.to(run.runtime.device))
            with torch.no_grad():
                return model(inputs, positions, None, packed_seq_params=documents)[..., :VOCAB_SIZE].cpu()

        differs_BS = (logits(tokens_BS) != logits(changed_BS)).any(dim=-1)
        assert differs_BS[first_BS].float().mean() > 0.9  # the change is one
        return (differs_BS & (torch.arange(length) > rows[:, None] + 1)).any(dim=1).nonzero().flatten().tolist()
