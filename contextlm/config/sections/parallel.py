"""The `parallel` section: the layout over processes."""

from __future__ import annotations

from dataclasses import dataclass

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the model and the data are spread over processes."""

    tensor_model_parallel_size: int = option(1, "Processes that share each layer's matrices.", minimum=1)
    pipeline_model_parallel_size: int = option(1, "Pipeline stages that share the layers.", minimum=1)
    sequence_parallel: bool = option(
        False,
        "Between its matrices, each tensor-parallel rank holds its part of the sequence: less activation memory.",
    )
    num_layers_per_virtual_pipeline_stage: int | None = option(
        None,
        "Layers of one model chunk of an interleaved pipeline, in which each stage holds several chunks.",
        example=2,
        minimum=1,
    )
    num_virtual_stages_per_pipeline_rank: int | None = option(
        None,
        "Model chunks of each stage of an interleaved pipeline: the other way to say the same.",
        example=2,
        minimum=1,
    )
    decoder_first_pipeline_num_layers: int | None = option(
        None, "Layers of the first stage, which also embeds; the others share the rest equally.", example=5, minimum=1
    )
    decoder_last_pipeline_num_layers: int | None = option(
        None,
        "Layers of the last stage, which also computes the loss; the others share the rest equally.",
        example=5,
        minimum=1,
    )
    use_distributed_optimizer: bool = option(
        True, "Data-parallel ranks share the optimizer's states instead of each holding all of them."
    )
    overlap_grad_reduce: bool = option(
        False, "Sum gradients over data-parallel ranks bucket by bucket while the backward pass goes on."
    )
    overlap_param_gather: bool = option(
        False, "Gather updated weights bucket by bucket while the next forward pass goes on."
    )
    accumulate_allreduce_grads_in_fp32: bool = option(
        True, "Gradients of 16-bit weights are summed in fp32, over micro-batches and over ranks."
    )
    ddp_bucket_size: int | None = option(
        None,
        "Parameters of one bucket of an overlapped reduction or gather; 40,000,000, or 1,000,000 for each "
        "data-parallel rank if that is more, if not given.",
        example=40000000,
        minimum=1,
    )
    distributed_backend: str = option(
        "auto", "Collectives: auto takes nccl where CUDA is, else gloo.", choices=("auto", "nccl", "gloo")
    )
    distributed_timeout_minutes: int = option(10, "Minutes until a silent peer is an error.", minimum=1)
    hang_timeout_seconds: float | None = option(
        None,
        "Seconds that a rank may spend in one place, a micro-batch, an update, a log line, before all ranks write "
        "their stacks and one reports who hangs; half as long again later the run ends. If not given 240, or 40% of "
        "--distributed-timeout-minutes where that is less; 0 = never.",
        example=240.0,
        minimum=0,
    )

    @property
    def model_parallel_size(self) -> int:
        """Processes that hold one copy of the model."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size

    @property
    def hang_limit_seconds(self) -> float:
        """Seconds at one place until a rank is stuck; 0 if it never is."""
        given = self.hang_timeout_seconds
        return min(240.0, 0.4 * 60 * self.distributed_timeout_minutes) if given is None else given

    @property
    def splits_sequence(self) -> bool:
        """Whether tensor-parallel ranks share the sequence; one rank has nobody to share it with."""
        return self.sequence_parallel and self.tensor_model_parallel_size > 1
