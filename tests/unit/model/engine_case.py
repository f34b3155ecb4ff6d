"""A checkpoint crosses between torch's layers and Transformer Engine's, here its stand-in's; a process of its own.

torchrun --nproc-per-node N tests/unit/model/engine_case.py FOLDER       (N tensor-parallel ranks)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from contextlm.config.schema import Config
from contextlm.parallel import runtime
from tests.small_configs import BACKBONES, VOCAB_SIZE, small_config
from tests.unit.model import engine_stand_in
from tests.unit.model.forward import logits, token_ids

ENGINE_LAYERS = {"TELayerNormColumnParallelLinear", "TERowParallelLinear", "TEDotProductAttention"}


def main(folder: Path) -> None:
    """Each backbone, with and without a norm of the head's own."""
    engine_stand_in.install()  # nothing above imports megatron-core
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    configs = [
        small_config(backbone, context_fusion=fusion, tensor_model_parallel_size=ranks)
        for backbone, fusion in zip(BACKBONES, ("gated", "norm_add"), strict=True)
    ]
    with runtime.start(configs[0].parallel):
        from contextlm.parallel.layout import model_parallel
        from contextlm.parallel.seeds import seed_weights

        with model_parallel(configs[0].parallel) as layout:
            seed_weights(1234, layout)
            for index, config in enumerate(configs):
                _cross(config, layout, folder / str(index))
    print("crossed")


def _cross(config: Config, layout: Any, folder: Path) -> None:
    """torch -> Transformer Engine -> torch, through files."""
    from contextlm.checkpoints.sharded_state import metadata
    from tests.distributed.parity_cases import load_whole

    ours, theirs = _build(config, layout, "torch"), _build(config, layout, "transformer_engine")
    used = {type(module).__name__ for module in theirs.modules()}
    assert used >= ENGINE_LAYERS and not used & {"ColumnLinear", "RowLinear", "ScaledDotProductAttention"}, used
    assert _names(ours) != _names(theirs)  # what would be lost without the names of checkpoints
    described = [
        {part.key: (part.global_shape, part.global_offset, part.dtype) for part in _parts(model, metadata(layout))}
        for model in (ours, theirs)
    ]
    assert described[0] == described[1] and len(described[0]) > 40
    for seed, source, target in ((0, ours, theirs), (1, theirs, ours)):
        load_whole(source, _random(source, metadata(layout), seed))
        _through_files(source, target, layout, folder / str(seed))
        pairs = zip(_parts(source, metadata(layout)), _parts(target, metadata(layout)), strict=True)
        assert all(torch.equal(one.data, other.data) for one, other in pairs)
        if layout.groups.tp.size() == 1:  # the stand-in exchanges nothing
            tokens = token_ids(2, 23)
            torch.testing.assert_close(logits(source, tokens), logits(target, tokens), rtol=1e-4, atol=1e-4)
            load_whole(source, _random(source, metadata(layout), seed + 7))
            assert (logits(source, tokens) - logits(target, tokens)).abs().max() > 0.1


def _build(config: Config, layout: Any, backend: str) -> torch.nn.Module:
    from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

    from contextlm.model import builder
    from contextlm.model.backends import TorchSpecProvider

    provider = TESpecProvider() if backend == "transformer_engine" else TorchSpecProvider()
    # What chooses it wants a CUDA device.
    with mock.patch.object(builder, "choose_backend", lambda *given: provider):
        (model,) = builder.build_model(config, VOCAB_SIZE, layout.groups)
    return model.eval()


def _names(model: torch.nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def _parts(model: Any, content: dict[str, Any]) -> list[Any]:
    """What a checkpoint takes of this rank, by key."""
    return sorted(model.sharded_state_dict(metadata=content).values(), key=lambda part: part.key)


def _random(model: torch.nn.Module, content: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Whole tensors by key, the same on every rank; about the scale of the residual stream."""
    generator = torch.Generator().manual_seed(seed)
    return {
        part.key: torch.randn(part.global_shape, generator=generator) * part.global_shape[-1] ** -0.5
        for part in _parts(model, content)
    }


def _through_files(source: torch.nn.Module, target: torch.nn.Module, layout: Any, folder: Path) -> None:
    from megatron.core import dist_checkpointing

    from contextlm.checkpoints.sharded_state import CONTENT, weights_state

    folder.mkdir(parents=True, exist_ok=True)
    dist_checkpointing.save(weights_state([source], layout), str(folder), content_metadata=CONTENT)
    loaded = dist_checkpointing.load(weights_state([target], layout), str(folder))
    result = target.load_state_dict(loaded["model0"], strict=False)
    assert not result.unexpected_keys and all(key.endswith("_extra_state") for key in result.missing_keys), result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
