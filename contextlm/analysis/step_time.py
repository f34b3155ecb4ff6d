"""How long a step takes, by a simple model whose every assumption is here; it ranks layouts, it is no promise.

- Products run at `mfu` of the peak: that of one GPU by itself, with a micro-batch that keeps it busy. What is computed
  again costs its operations. A layer of a micro-batch takes at least LAUNCH seconds, in which the host starts its
  kernels: small micro-batches, and small shares of a layer, run no faster than that.
- Stages wait as `stage_work.py` says.
- Messages cost their bytes over a bandwidth: NVLink inside a node, the network beyond it. They overlap with nothing,
  but for `--overlap-grad-reduce` and `--overlap-param-gather`, which hide them behind one micro-batch.
  Ranks of a node are filled by tensor, then data, then pipeline parallelism, as `parallel/layout.py` numbers them.
  Tensor parallelism has four all-reduces of [S, B, H] a layer and micro-batch (Shoeybi et al., 2019, "Megatron-LM",
  section 3), which sequence parallelism turns into as many bytes of other messages, and those of the forward pass
  again where it is computed again; data parallelism sums the gradients and gathers the weights once a step; a
  pipeline sends [S, B, H] and its gradient once a model chunk and micro-batch.
- The optimizer's arithmetic, evaluations, saves and stragglers cost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from contextlm.analysis.memory import stage_parameters
from contextlm.analysis.stage_work import stage_work, step_length
from contextlm.config.pipeline import stage_parts
from contextlm.config.schema import Config

LAUNCH = 0.5e-3
"""Seconds of the host for forward and backward pass of one layer of a micro-batch."""


class Machine(NamedTuple):
    """The GPUs.

    Attributes:
        peak_tflops: of one GPU.
        mfu: share of the peak that training reaches on one GPU by itself, 0..1.
        per_node: GPUs that NVLink joins.
        nvlink, network: bytes per second that a GPU sends.
    """

    peak_tflops: float
    mfu: float
    per_node: int = 8
    nvlink: float = 300e9
    network: float = 45e9

    @property
    def speed(self) -> float:
        """Operations per second of one GPU."""
        return self.peak_tflops * 1e12 * self.mfu

    def bandwidth(self, ranks: int) -> float:
        """Among so many neighbouring ranks."""
        return self.nvlink if ranks <= self.per_node else self.network


class StepTime(NamedTuple):
    """Seconds of one step by what they are spent on.

    Attributes:
        work: operations of the model, if all GPUs shared them equally.
        again: operations that are done twice, likewise.
        launches: the host starts kernels more slowly than a GPU runs them.
        tensor: messages between tensor-parallel ranks.
        waiting: pipeline stages wait for a slower one, and while the pipeline fills and drains.
        pipeline: messages between stages.
        data: messages between data-parallel ranks.
    """

    work: float
    again: float
    launches: float
    tensor: float
    waiting: float
    pipeline: float
    data: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(self)


def step_time(config: Config, vocab_size: int, world_size: int, machine: Machine) -> StepTime:
    """One step of `world_size` GPUs."""
    parallel, number = config.parallel, config.num_microbatches(world_size)
    tokens = config.model.seq_length * config.training.micro_batch_size
    per_token = tokens / (parallel.tensor_model_parallel_size * machine.speed)
    works = stage_work(config, vocab_size)
    stages = len(works)
    compute = [work.training * per_token for work in works]
    places = [stage_parts(config, stage) for stage in range(stages)]
    launches = [max(0.0, _launch_seconds(config, parts) - s) for parts, s in zip(places, compute, strict=True)]
    tensor = [_tensor_seconds(config, parts, machine) for parts in places]
    busy = [sum(seconds) for seconds in zip(compute, launches, tensor, strict=True)]
    return StepTime(
        work=number * 3 * sum(work.forward for work in works) * per_token / stages,
        again=number * sum(work.again for work in works) * per_token / stages,
        launches=number * sum(launches) / stages,
        tensor=number * sum(tensor) / stages,
        waiting=step_length(busy, number, config.num_model_chunks) - number * sum(busy) / stages,
        pipeline=number * _pipeline_seconds(config, world_size, machine),
        data=max(_data_seconds(config, vocab_size, stage, world_size, machine, busy[stage]) for stage in range(stages)),
    )


def _launch_seconds(config: Config, parts: list[range]) -> float:
    layers = _layers(config, parts, 1)
    return LAUNCH * layers * (4 / 3 if config.training.recompute_granularity == "full" else 1)


def _layers(config: Config, parts: list[range], of_predictor: float) -> float:
    """Layers of a stage, and so much for each of the context predictor's if it is there."""
    context = config.context
    has_head = context.enabled and any(config.encoder_layers in part for part in parts)
    return sum(map(len, parts)) + (of_predictor * context.context_predictor_layers if has_head else 0)


def _tensor_seconds(config: Config, parts: list[range], machine: Machine) -> float:
    """Messages between tensor-parallel ranks for one micro-batch; the context predictor's are of chunks."""
    ranks = config.parallel.tensor_model_parallel_size
    if ranks == 1:
        return 0.0
    training = config.training
    again = {"full": 2, "selective": int("mlp" in training.recompute_modules)}
    reduces = 4 + again.get(training.recompute_granularity or "", 0)
    sent = 2 * (ranks - 1) / ranks * _state_bytes(config)  # of a ring all-reduce
    layers = _layers(config, parts, 1 / max(config.context.context_chunk_size, 1))
    return layers * reduces * sent / machine.bandwidth(ranks)


def _pipeline_seconds(config: Config, world_size: int, machine: Machine) -> float:
    stages = config.parallel.pipeline_model_parallel_size
    if stages == 1:
        return 0.0
    ranks = config.parallel.tensor_model_parallel_size if config.parallel.splits_sequence else 1
    return 2 * config.num_model_chunks * _state_bytes(config) / ranks / machine.bandwidth(world_size)


def _data_seconds(config: Config, vocab_size: int, stage: int, world_size: int, machine: Machine, busy: float) -> float:
    """Gradients to the ranks that update them, updated weights back; without sharing, whole gradients to all.

    busy: seconds of one micro-batch, a third of them forward.
    """
    parallel, copies = config.parallel, config.data_parallel_size(world_size)
    weight_bytes = 2 if config.half_precision else 4
    gradient_bytes = 4 if parallel.accumulate_allreduce_grads_in_fp32 else weight_bytes
    count = stage_parameters(config, vocab_size, stage) * (copies - 1) / copies
    per_byte = count / machine.bandwidth(copies * parallel.tensor_model_parallel_size)
    gradients = gradient_bytes * per_byte
    weights = (weight_bytes if parallel.use_distributed_optimizer else gradient_bytes) * per_byte
    gradients = max(0.0, gradients - busy * 2 / 3) if parallel.overlap_grad_reduce else gradients
    return gradients + (max(0.0, weights - busy / 3) if parallel.overlap_param_gather else weights)


def _state_bytes(config: Config) -> int:
    """Of [S, B, H]."""
    model = config.model
    return model.seq_length * config.training.micro_batch_size * model.hidden_size * (2 if config.half_precision else 4)
