"""Where a pipeline's work lies: floating-point operations of each stage, and the time that stages wait for another.

Stages work on micro-batches one after the other (1F1B). A step of m micro-batches takes m times the slowest stage, and
once the others, while the pipeline fills and drains. With v model chunks a stage (interleaved) filling takes 1 / v of
that. For p equal stages this is Narayanan et al., 2021, "Efficient Large-Scale Language Model Training on GPU Clusters
Using Megatron-LM", section 2.2: a bubble of (p - 1) / (m v) of the time without it. Sending is not counted here.
Read next: `step_time.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.flops import layer_flops
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config


class StageWork(NamedTuple):
    """Operations per token of one stage, all tensor-parallel ranks together.

    Attributes:
        layers, head, output: of its forward pass: backbone, context head, output layer.
        again: of the forward pass that the backward pass does again.
    """

    layers: float
    head: float
    output: float
    again: float

    @property
    def forward(self) -> float:
        """All of the forward pass."""
        return self.layers + self.head + self.output

    @property
    def training(self) -> float:
        """Forward, twice that backward, and what is computed again."""
        return 3 * self.forward + self.again


def stage_work(config: Config, vocab_size: int) -> list[StageWork]:
    """The work of each pipeline stage; the forward passes add up to the model's."""
    model, context, training = config.model, config.context, config.training
    length, granularity = model.seq_length, training.recompute_granularity
    stages = config.parallel.pipeline_model_parallel_size
    chunks = length // context.context_chunk_size if context.enabled else 0
    per_layer, share = layer_flops(model, length), context.context_predictor_layers * chunks / length
    head = share * layer_flops(model, chunks) if chunks else 0.0
    selective = _selective(config, length) if granularity == "selective" else 0.0
    found = []
    for stage in range(stages):
        parts = stage_parts(config, stage)
        count = sum(map(len, parts))
        here = head if any(config.encoder_layers in part for part in parts) else 0.0
        again = count * selective + (share * _selective(config, chunks) if here and selective else 0.0)
        for part in parts if granularity == "full" else ():
            recomputed = part[: training.recompute_num_layers] if training.recompute_method == "block" else part
            again += len(recomputed) * per_layer + (here if config.encoder_layers in recomputed else 0.0)
        output = 2.0 * model.hidden_size * vocab_size if stage == stages - 1 else 0.0
        found.append(StageWork(count * per_layer, here, output, again))
    return found


def _selective(config: Config, length: int) -> float:
    """What a layer computes again per position: attention's scores and sums, the MLP."""
    modules, model = config.training.recompute_modules, config.model
    attention = 4 * model.hidden_size * length if "core_attn" in modules else 0
    return attention + (4 * model.hidden_size * model.ffn_size if "mlp" in modules else 0)


class Balance(NamedTuple):
    """How a step's time divides, 1.0 being the whole.

    Attributes:
        work: of the average stage.
        waiting_for_slowest: while another stage works longer on each micro-batch.
        bubble: while the pipeline fills and drains.
    """

    work: float
    waiting_for_slowest: float
    bubble: float


def balance(times: list[float], num_microbatches: int, num_chunks: int) -> Balance:
    """Of stages that take so long for a micro-batch; only their ratios matter."""
    whole = step_length(times, num_microbatches, num_chunks)
    mean = num_microbatches * sum(times) / len(times)
    slowest = num_microbatches * max(times)
    return Balance(mean / whole, (slowest - mean) / whole, (whole - slowest) / whole)


def step_length(times: list[float], num_microbatches: int, num_chunks: int) -> float:
    """How long forward and backward passes of a step take, in the unit of `times`."""
    return num_microbatches * max(times) + (sum(times) - max(times)) / num_chunks
