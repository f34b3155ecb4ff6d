"""The laptop twin of a run: the same options and the same layout, the model shrunk in width and depth.

The number of attention heads stays, so what a layout demands of it is demanded of the twin. Read next: `rehearse.py`,
which trains it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from contextlm.config.fields import all_fields
from contextlm.config.schema import Config, DataConfig, LoggingConfig, ParallelConfig
from contextlm.config.suggestions import divisors

MOST_PROCESSES = 8
HEAD_SIZE = 8
SEQ_LENGTH = 64
STEPS_BEFORE_STOP, STEPS = 3, 5


@dataclass(frozen=True)
class Twin:
    """What the laptop trains in place of `original` on `world_size` GPUs.

    Attributes:
        config: with the layout of the original, as far as it fits.
        processes: how many take part in it.
        resumed: the same run under another layout, with which it goes on after the stop.
        resumed_processes: how many take part in that.
    """

    original: Config
    world_size: int
    config: Config
    processes: int
    resumed: Config
    resumed_processes: int

    @property
    def untested(self) -> list[str]:
        """What a twin that trains does not prove, a line each."""
        before, after, processes = self.original, self.config, self.processes
        sizes = (
            f"{before.model.num_layers} layers of {before.model.hidden_size} became {after.model.num_layers} of "
            f"{after.model.hidden_size}, {before.model.seq_length} tokens {after.model.seq_length}, batches of "
            f"{before.global_batch_size(self.world_size)} {after.global_batch_size(processes)}"
        )
        wanted, had = layout_words(before, self.world_size), layout_words(after, processes)
        lines = [
            "the GPU: NCCL, CUDA's kernels, compiled layers; whether it fits (--dry-run estimates the memory)",
            f"the sizes: {sizes}",
            "your data and your tokenizer: the text was random words, a token a byte",
            "other machines: the network between nodes, a folder that they share, the scheduler",
            "speed, and where the loss goes in a long run",
        ]
        if wanted != had:
            lines.insert(0, f"the layout: {wanted} became {had}, at most {MOST_PROCESSES} processes")
        if left_out := _left_out(before, after):
            lines.append(f"options that the twin does without: {' '.join(left_out)}")
        return lines


def layout_words(config: Config, world_size: int) -> str:
    """A layout as the dry run names it."""
    parallel = config.parallel
    return (
        f"TP {parallel.tensor_model_parallel_size} x PP {parallel.pipeline_model_parallel_size} x "
        f"DP {config.data_parallel_size(world_size)}"
    )


def twin_of(config: Config, world_size: int) -> Twin:
    """The twin of a checked run on `world_size` GPUs."""
    parallel = _fitting_layout(config.parallel)
    copies = min(config.data_parallel_size(world_size), MOST_PROCESSES // parallel.model_parallel_size)
    first = _shrunk(config, parallel, copies)
    # Another layout on one process or two: the model whole where it was divided, divided where it was whole.
    stages = 1 if parallel.model_parallel_size > 1 else 2
    other = replace(_one_piece_per_stage(parallel), tensor_model_parallel_size=1, pipeline_model_parallel_size=stages)
    return Twin(
        original=config,
        world_size=world_size,
        config=first,
        processes=parallel.model_parallel_size * copies,
        resumed=replace(first, parallel=other),
        resumed_processes=min(copies, 2) if stages == 1 else stages,
    )


def _fitting_layout(parallel: ParallelConfig) -> ParallelConfig:
    """The layout, with fewer stages and then with fewer tensor-parallel ranks where it has more than the laptop."""
    tensor, stages = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    fitting = max([size for size in divisors(stages) if tensor * size <= MOST_PROCESSES], default=1)
    if fitting != stages:
        parallel = replace(_one_piece_per_stage(parallel), pipeline_model_parallel_size=fitting)
    tensor = max(size for size in divisors(tensor) if size * fitting <= MOST_PROCESSES)
    return replace(parallel, tensor_model_parallel_size=tensor, distributed_backend="auto")


def _one_piece_per_stage(parallel: ParallelConfig) -> ParallelConfig:
    """Equal stages that are not interleaved."""
    return replace(
        parallel,
        num_layers_per_virtual_pipeline_stage=None,
        num_virtual_stages_per_pipeline_rank=None,
        decoder_first_pipeline_num_layers=None,
        decoder_last_pipeline_num_layers=None,
    )


def _shrunk(config: Config, parallel: ParallelConfig, copies: int) -> Config:
    tensor, stages = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    if parallel.decoder_first_pipeline_num_layers or parallel.decoder_last_pipeline_num_layers:
        layers = config.model.num_layers  # as many as the stages were cut for
    else:
        layers = 2 * stages * (config.num_model_chunks if stages > 1 else 1)
    if parallel.num_layers_per_virtual_pipeline_stage is not None:
        parallel = replace(parallel, num_layers_per_virtual_pipeline_stage=2)
    encoder = config.context.context_encoder_layers
    model = replace(
        config.model,
        num_layers=layers,
        hidden_size=HEAD_SIZE * config.model.num_attention_heads,
        ffn_hidden_size=None,
        seq_length=-(-SEQ_LENGTH // tensor) * tensor,
        max_position_embeddings=None,
        vocab_size=None,
        transformer_impl="auto",
    )
    training = replace(
        config.training,
        micro_batch_size=1,
        global_batch_size=copies * 2 * stages,
        rampup_batch_size=(),
        train_iters=STEPS,
        train_samples=None,
        exit_interval=None,
        exit_duration_in_mins=None,
        skip_train=False,
        eval_iters=1,
        full_validation=False,
        multiple_validation_sets=False,
        recompute_num_layers=None if config.training.recompute_num_layers is None else 1,
    )
    optimizer = replace(
        config.optimizer,
        lr_decay_iters=None,
        lr_decay_samples=None,
        lr_warmup_iters=0,
        lr_warmup_samples=0,
        lr_wsd_decay_iters=1 if config.optimizer.lr_decay_style == "WSD" else None,
        lr_wsd_decay_samples=None,
    )
    return replace(
        config,
        model=model,
        context=replace(
            config.context,
            context_encoder_layers=None if encoder is None else encoder * layers // config.model.num_layers,
        ),
        parallel=parallel,
        training=training,
        optimizer=optimizer,
        data=DataConfig(
            split="90,10,0",
            reset_position_ids=config.data.reset_position_ids,
            reset_attention_mask=config.data.reset_attention_mask,
            eod_mask_loss=config.data.eod_mask_loss,
        ),
        checkpoint=replace(config.checkpoint, save=None, load=None, finetune=False, init_backbone_from=None),
        logging=LoggingConfig(log_interval=1, progress_bar=False),
    )


def _left_out(original: Config, twin: Config) -> list[str]:
    """Options that were given and have their default in the twin; its sizes are told by themselves."""
    left_out = []
    for name, field in all_fields().items():
        before, after = (getattr(getattr(config, field.section), name) for config in (original, twin))
        if before != field.default and after == field.default:
            left_out += [] if field.section == "model" or name == "micro_batch_size" else [field.flag]
    return left_out
