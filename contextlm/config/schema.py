"""The one configuration tree: every value a run depends on, each written once.

A field of a section (`sections/`) is a flag (`num_layers` -> `--num-layers`), a YAML key of its section, a line
of `--help` and a row of the saved `config.yaml`. Names and meanings are Megatron-LM's wherever it has
the option. The tree is frozen; what follows from other values is a property. Checks that need more
than one field are in `validation.py`; named starting points are in `presets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from contextlm.config.sections.checkpoint import CheckpointConfig
from contextlm.config.sections.context import ContextConfig
from contextlm.config.sections.data import DataConfig
from contextlm.config.sections.logging import LoggingConfig
from contextlm.config.sections.model import ModelConfig
from contextlm.config.sections.optimizer import OptimizerConfig
from contextlm.config.sections.parallel import ParallelConfig
from contextlm.config.sections.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The resolved configuration of one run."""

    preset: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    @property
    def encoder_layers(self) -> int:
        """Layers of the token encoder (E): the head acts on the input of layer E."""
        given = self.context.context_encoder_layers
        return self.model.num_layers // 2 if given is None else given

    @property
    def num_model_chunks(self) -> int:
        """Parts of the model that each pipeline stage holds: more than 1 in an interleaved pipeline."""
        parallel = self.parallel
        if parallel.num_layers_per_virtual_pipeline_stage is not None:
            # Stages are equal here: with uneven ones the chunks must be given by their number.
            per_stage = self.model.num_layers // parallel.pipeline_model_parallel_size
            return per_stage // parallel.num_layers_per_virtual_pipeline_stage
        return parallel.num_virtual_stages_per_pipeline_rank or 1

    @property
    def half_precision(self) -> bool:
        """Whether weights and activations have 16 bits, over fp32 master weights."""
        return self.training.bf16 or self.training.fp16

    @property
    def fp8(self) -> bool:
        """Whether the linear layers multiply numbers of 8 bits."""
        return self.training.fp8_format is not None

    @property
    def precision(self) -> str:
        """Type of weights and activations: bf16, fp16 or fp32."""
        return "bf16" if self.training.bf16 else "fp16" if self.training.fp16 else "fp32"

    @property
    def output_dir(self) -> str | None:
        """Folder for metrics.jsonl and exit.json."""
        return self.logging.output_dir or self.checkpoint.save

    def data_parallel_size(self, world_size: int) -> int:
        """Copies of the model among `world_size` processes."""
        return world_size // self.parallel.model_parallel_size

    def global_batch_size(self, world_size: int) -> int:
        """Samples per optimizer step."""
        given = self.training.global_batch_size
        return self.training.micro_batch_size * self.data_parallel_size(world_size) if given is None else given

    def num_microbatches(self, world_size: int) -> int:
        """Forward passes of one data-parallel rank per optimizer step."""
        per_pass = self.training.micro_batch_size * self.data_parallel_size(world_size)
        return self.global_batch_size(world_size) // per_pass
