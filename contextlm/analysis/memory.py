"""Memory that parameters cost on each rank: weights, gradients, optimizer states; no activations.

Assumes what training does: gradients in fp32, AdamW moments in fp32, with bf16 also fp32 master weights,
and the optimizer's states shared by the data-parallel ranks (the distributed optimizer).
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.parameters import context_head_parameters, layer_parameters, norm_parameters
from contextlm.config.schema import Config


class RankMemory(NamedTuple):
    """Bytes on one rank of a pipeline stage."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Bytes of all three."""
        return sum(self)


def stage_layers(config: Config, stage: int) -> range:
    """The layers (numbered from 0 over the whole model) that a pipeline stage holds."""
    share = config.model.num_layers // config.parallel.pipeline_model_parallel_size
    return range(stage * share, (stage + 1) * share)


def stage_parameters(config: Config, vocab_size: int, stage: int) -> int:
    """Parameters on one tensor-parallel rank of a stage, padding of the vocabulary included."""
    model, parallel = config.model, config.parallel
    ranks, stages = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    first, last = stage == 0, stage == stages - 1
    table = model.padded_vocab_size(vocab_size, ranks) // ranks * model.hidden_size
    layers = stage_layers(config, stage)
    count = len(layers) * layer_parameters(model, ranks)
    if config.encoder_layers in layers:
        count += context_head_parameters(model, config.context, ranks)
    if first:
        count += table
        count += model.num_positions * model.hidden_size if model.position_embedding_type == "learned_absolute" else 0
    if last:
        count += norm_parameters(model)
        # A tied output layer is the embedding itself, unless another stage holds that.
        count += table if model.untie_embeddings_and_output_weights or not first else 0
    return count


def rank_memory(config: Config, vocab_size: int, stage: int, world_size: int) -> RankMemory:
    """Bytes on a rank of `stage` among `world_size` processes."""
    count = stage_parameters(config, vocab_size, stage)
    weight_bytes, state_bytes = (2, 12) if config.training.bf16 else (4, 8)
    shared_by = config.data_parallel_size(world_size) if config.parallel.use_distributed_optimizer else 1
    return RankMemory(weight_bytes * count, 4 * count, state_bytes * count // shared_by)
