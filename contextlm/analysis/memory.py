"""Memory of each rank, of every kind: what parameters cost, activations, logits, buffers.

What training does: weights in the precision of the run; gradients in fp32, or as the weights with
`--no-accumulate-allreduce-grads-in-fp32`, or nowhere but where autograd leaves them (`execution.py`); AdamW's two
moments in fp32, and with 16-bit weights their fp32 masters too, shared by the data-parallel ranks if the optimizer is
the distributed one. Activations and logits are those of the moment at which a rank holds most; of sums in 16 bits
AdamW makes copies in fp32 when they are gone. Not counted, for no tensor holds it: CUDA's own memory, NCCL's, and what
the allocator cannot use because it lies in pieces. Read next: `activation_memory.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.activation_memory import Activations
from contextlm.analysis.activation_peak import peak_activations
from contextlm.analysis.execution import execution
from contextlm.analysis.parameters import context_head_parameters, layer_parameters, norm_parameters
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config

# cuBLAS on Hopper takes 32 MiB of the allocator's memory for each thread that multiplies, the backward pass's too.
LIBRARY_WORKSPACES = 2 * 32 * 2**20


class RankMemory(NamedTuple):
    """Bytes on one rank of a pipeline stage.

    Attributes:
        gradients: megatron-core's buffer, and those that wait at the peak of activations for the backward pass to end;
            and what the fp32 copies for the update take beyond that peak.
        activations: at their peak, without logits.
        logits: at that moment, with their softmax: 0 where another is worse.
        buffers: of libraries, and that into which sequence parallelism gathers tokens.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self)


def stage_parameters(config: Config, vocab_size: int, stage: int) -> int:
    """Parameters on one tensor-parallel rank of a stage, padding of the vocabulary included."""
    model, parallel = config.model, config.parallel
    ranks, stages = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    first, last = stage == 0, stage == stages - 1
    table = model.padded_vocab_size(vocab_size, ranks) // ranks * model.hidden_size
    parts = stage_parts(config, stage)
    count = sum(map(len, parts)) * layer_parameters(model, ranks)
    if any(config.encoder_layers in part for part in parts):
        count += context_head_parameters(model, config.context, ranks)
    if first:
        count += table
        count += model.num_positions * model.hidden_size if model.position_embedding_type == "learned_absolute" else 0
    if last:
        count += norm_parameters(model)
        # A tied output layer is the embedding itself, unless another stage holds that.
        count += table if model.untie_embeddings_and_output_weights or not first else 0
    return count


def rank_memory(config: Config, vocab_size: int, stage: int, world_size: int, *, on_cuda: bool = True) -> RankMemory:
    """Bytes on a rank of `stage` among `world_size` processes, each with a GPU or without."""
    count, parallel = stage_parameters(config, vocab_size, stage), config.parallel
    how = execution(config, world_size, on_cuda)
    weight_bytes, state_bytes = (2, 12) if config.half_precision else (4, 8)
    gradient_bytes = 4 if parallel.accumulate_allreduce_grads_in_fp32 else weight_bytes
    buffer = gradient_bytes * count if how.buffered else 0
    shared_by = config.data_parallel_size(world_size) if parallel.use_distributed_optimizer else 1
    peak = peak_activations(config, vocab_size, stage, config.num_microbatches(world_size), how)
    copies = 4 * count // shared_by if how.buffered and gradient_bytes == 2 else 0
    activations = Activations(config, vocab_size, how)
    gathered = activations.states * activations.element if parallel.splits_sequence else 0
    return RankMemory(
        weights=weight_bytes * count,
        gradients=buffer + peak.waiting + max(0, copies - peak.total),
        optimizer=state_bytes * count // shared_by,
        activations=peak.total - peak.logits - peak.waiting,
        logits=peak.logits,
        buffers=LIBRARY_WORKSPACES + gathered,
    )


def fullest(config: Config, vocab_size: int, world_size: int, *, on_cuda: bool = True) -> RankMemory:
    """Memory of a rank of the stage that holds most."""
    stages = range(config.parallel.pipeline_model_parallel_size)
    memories = (rank_memory(config, vocab_size, stage, world_size, on_cuda=on_cuda) for stage in stages)
    return max(memories, key=lambda memory: memory.total)
