"""The one configuration tree: every value a run depends on, each written once.

A field here is a flag (`num_layers` -> `--num-layers`), a YAML key of its section, a line of
`--help` and a row of the saved `config.yaml`. Names and meanings are Megatron-LM's wherever it has
the option. The tree is frozen; what follows from other values is a property. Checks that need more
than one field are in `validation.py`; named starting points are in `presets.py`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The GPT backbone: GPT-2 or GPT-NeoX (Pythia), built from megatron-core layers."""

    num_layers: int = option(4, "Number of transformer layers of the backbone.", minimum=1)
    hidden_size: int = option(128, "Width of the residual stream.", minimum=1)
    ffn_hidden_size: int | None = option(
        None, "Width of the MLP; 4 x hidden size if not given.", example=3072, minimum=1
    )
    num_attention_heads: int = option(4, "Number of attention heads.", minimum=1)
    seq_length: int = option(256, "Tokens per training sample.", minimum=1)
    max_position_embeddings: int | None = option(
        None, "Rows of the learned position table; follows --seq-length if not given.", example=1024, minimum=1
    )
    position_embedding_type: str = option(
        "learned_absolute",
        "How positions enter: GPT-2 adds a table, GPT-NeoX rotates.",
        choices=("learned_absolute", "rope"),
    )
    rotary_percent: float = option(1.0, "Share of each head that is rotated (rope only).", above=0, maximum=1)
    rotary_base: int = option(10000, "Base period of the rotation (rope only).", minimum=1)
    norm_epsilon: float = option(1e-5, "Epsilon of every LayerNorm.", above=0)
    gelu: str = option("tanh", "GELU variant: tanh (GPT-2) or erf (GPT-NeoX).", choices=("tanh", "erf"))
    parallel_residual: bool = option(
        False, "GPT-NeoX's residual, x + attn(ln1(x)) + mlp(ln2(x)), in place of the sequential one."
    )
    untie_embeddings_and_output_weights: bool = option(
        False, "Give the output layer weights of its own (GPT-NeoX) in place of the embedding's (GPT-2)."
    )
    vocab_size: int | None = option(
        None,
        "Size of the vocabulary for --dry-run without a tokenizer; training takes the tokenizer's.",
        example=50257,
        minimum=1,
    )
    make_vocab_size_divisible_by: int = option(
        128, "The embedding table is padded to a multiple of this times the tensor-parallel size.", minimum=1
    )
    hidden_dropout: float = option(
        0.0, "Dropout after embedding, attention and MLP.", example=0.1, minimum=0, maximum=0.99
    )
    attention_dropout: float = option(0.0, "Dropout on attention probabilities.", example=0.1, minimum=0, maximum=0.99)
    init_method: str = option(
        "normal",
        "Initial weights: normal (std --init-method-std) or small_init, std sqrt(2 / (5 hidden)).",
        choices=("normal", "small_init"),
    )
    init_method_std: float = option(0.02, "Standard deviation of normal initial weights.", above=0)
    output_layer_init_method: str = option(
        "scaled_normal",
        "Initial residual projections: scaled_normal, std / sqrt(2 layers), or wang_init, 2 / (layers sqrt(hidden)).",
        choices=("scaled_normal", "wang_init"),
    )
    transformer_impl: str = option(
        "auto",
        "Layer backend: auto takes Transformer Engine where it imports and fits, else torch (= local).",
        choices=("auto", "torch", "local", "transformer_engine"),
    )

    @property
    def ffn_size(self) -> int:
        """Width of the MLP."""
        return self.ffn_hidden_size or 4 * self.hidden_size

    @property
    def num_positions(self) -> int:
        """Rows of the learned position table."""
        return self.max_position_embeddings or self.seq_length

    def padded_vocab_size(self, vocab_size: int, tensor_model_parallel_size: int) -> int:
        """`vocab_size` rounded up so that every tensor-parallel rank holds equally many rows."""
        multiple = self.make_vocab_size_divisible_by * tensor_model_parallel_size
        return math.ceil(vocab_size / multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """The context head (docs/method.md): chunk size 0 leaves the plain backbone."""

    context_chunk_size: int = option(
        0, "Tokens pooled into one context embedding; 0 = no context head.", example=4, minimum=0
    )
    context_predictor_layers: int = option(2, "Causal layers over chunks; 0 = pooling only.", minimum=0)
    context_encoder_layers: int | None = option(
        None, "Layers of the token encoder, before the head; half of the layers if not given.", example=6, minimum=0
    )
    context_pooling: str = option(
        "mean", "How a chunk's states become one embedding.", choices=("mean", "last", "first")
    )
    context_fusion: str = option(
        "gated",
        "How the prediction reaches a token: gated h + a p, gated_channel (a per channel), add h + p, "
        "norm_add norm(h) + norm(p).",
        choices=("gated", "gated_channel", "add", "norm_add"),
    )
    context_shift: bool = option(True, "The last token of a chunk already receives the next chunk's prediction.")
    context_stop_gradient: bool = option(False, "No gradient from the predictor into the token encoder.")
    context_control: str = option(
        "none",
        "At evaluation only, replace the prediction, to see whether the context helps.",
        choices=("none", "zero", "shuffle", "random", "previous"),
    )

    @property
    def enabled(self) -> bool:
        """Whether there is a context head."""
        return self.context_chunk_size > 0


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

    @property
    def model_parallel_size(self) -> int:
        """Processes that hold one copy of the model."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size

    @property
    def splits_sequence(self) -> bool:
        """Whether tensor-parallel ranks share the sequence; one rank has nobody to share it with."""
        return self.sequence_parallel and self.tensor_model_parallel_size > 1


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The loop: how much, how often, in which precision."""

    micro_batch_size: int = option(1, "Samples per forward pass of one data-parallel rank.", minimum=1)
    global_batch_size: int | None = option(
        None, "Samples per optimizer step; micro-batch size x data-parallel size if not given.", example=64, minimum=1
    )
    train_iters: int | None = option(None, "Optimizer steps of the whole run.", example=1000, minimum=0)
    train_samples: int | None = option(
        None,
        "Samples of the whole run, in place of --train-iters; an incomplete last batch is left out, and the schedules "
        "are in samples too.",
        example=100000,
        minimum=1,
    )
    exit_interval: int | None = option(
        None, "Save and exit when the iteration is a multiple of this.", example=500, minimum=1
    )
    exit_duration_in_mins: float | None = option(
        None, "Save and exit when the processes have run for so many minutes.", example=230.0, above=0
    )
    exit_signal_handler: bool = option(
        True,
        "With --save, SIGTERM and SIGUSR1 finish the iteration, save and exit with status 75; a second signal ends the "
        "process at once.",
    )
    skip_train: bool = option(False, "Only evaluate the checkpoint of --load, on validation and test data.")
    eval_interval: int = option(1000, "Iterations between evaluations.", minimum=1)
    eval_iters: int = option(100, "Global batches per evaluation, at most one pass; 0 = none.", minimum=0)
    full_validation: bool = option(False, "Validate on one whole pass, whatever --eval-iters says; not the test.")
    multiple_validation_sets: bool = option(
        False, "Evaluate each dataset of --valid-data-path by itself, as validation/NAME."
    )
    check_for_nan_in_loss_and_grad: bool = option(
        True,
        "Stop when the loss, the gradient norm or a weight is NaN or infinite, before the next save; looked at with "
        "the log line. Not with the loss scale of fp16 that adapts itself: there an overflow is no fault.",
    )
    eval_context_zeroed: bool = option(
        True, "Evaluate a second time with zero in place of the context head's predictions: what it is worth."
    )
    seed: int = option(1234, "Seed of weights, dropout and data order.", minimum=0)
    rampup_batch_size: tuple[str, ...] = option(
        (),
        "START INCREMENT SAMPLES: begin with batches of START samples and grow by INCREMENT at equal distances, "
        "to the full --global-batch-size after SAMPLES samples.",
        example=("16", "16", "10000"),
    )
    bf16: bool = option(False, "bfloat16 weights and activations over fp32 master weights.")
    fp16: bool = option(False, "fp16 weights and activations over fp32 master weights, with a loss scale.")
    recompute_granularity: str | None = option(
        None,
        "Save activation memory by computing again in the backward pass: full, whole layers (--recompute-method); "
        "selective, parts of each layer (--recompute-modules).",
        choices=("full", "selective"),
    )
    recompute_method: str | None = option(
        None,
        "Which layers are computed again with full: uniform, all, in groups of --recompute-num-layers; block, the "
        "first --recompute-num-layers of each stage (of each model chunk, interleaved).",
        choices=("uniform", "block"),
    )
    recompute_num_layers: int | None = option(
        None, "Layers of a group (uniform) or of each stage (block).", example=1, minimum=1
    )
    recompute_modules: tuple[str, ...] = option(
        ("core_attn",), "Parts that are computed again with selective: core_attn, mlp, or both."
    )
    check_replicas_interval: int | None = option(
        None,
        "Iterations between checks that weights which several ranks hold are still bit-equal; a difference is an "
        "error that names the weight and the ranks.",
        example=100,
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    lr: float = option(6e-4, "Peak learning rate.", above=0)
    min_lr: float = option(0.0, "Learning rate at the end of the decay.", example=6e-5, minimum=0)
    lr_decay_style: str = option(
        "cosine",
        "Shape of the decay; WSD stays at --lr until the last --lr-wsd-decay-iters.",
        choices=("cosine", "linear", "constant", "inverse-square-root", "WSD"),
    )
    lr_decay_iters: int | None = option(
        None, "Iterations until --min-lr; --train-iters if not given.", example=1000, minimum=1
    )
    lr_decay_samples: int | None = option(
        None, "Samples until --min-lr, with --train-samples, which it is if not given.", example=100000, minimum=1
    )
    lr_wsd_decay_iters: int | None = option(None, "Iterations of WSD's decay, the last ones.", example=100, minimum=1)
    lr_wsd_decay_samples: int | None = option(
        None, "Samples of WSD's decay, the last ones, with --train-samples.", example=10000, minimum=1
    )
    lr_wsd_decay_style: str = option(
        "exponential", "Shape of WSD's decay.", choices=("exponential", "linear", "cosine", "minus_sqrt")
    )
    lr_warmup_iters: int = option(0, "Iterations of linear warm-up from 0.", example=100, minimum=0)
    lr_warmup_samples: int = option(
        0, "Samples of linear warm-up from 0, with --train-samples.", example=10000, minimum=0
    )
    lr_warmup_fraction: float | None = option(
        None, "Share of the decay's length that is warm-up, in place of its length.", example=0.1, minimum=0, maximum=1
    )
    weight_decay: float = option(0.1, "AdamW weight decay; never on biases, norms and the gate.", minimum=0)
    weight_decay_incr_style: str = option(
        "constant",
        "How weight decay goes from --start-weight-decay to --end-weight-decay over the run.",
        choices=("constant", "linear", "cosine"),
    )
    start_weight_decay: float | None = option(
        None, "Weight decay at the start, where it is not constant.", example=0.01, minimum=0
    )
    end_weight_decay: float | None = option(
        None, "Weight decay at the end, where it is not constant.", example=0.1, minimum=0
    )
    adam_beta1: float = option(0.9, "AdamW beta 1.", minimum=0, maximum=0.999999)
    adam_beta2: float = option(0.95, "AdamW beta 2.", minimum=0, maximum=0.999999)
    adam_eps: float = option(1e-8, "AdamW epsilon.", above=0)
    clip_grad: float = option(1.0, "Global gradient norm above which gradients are scaled down; 0 = off.", minimum=0)
    loss_scale: float | None = option(
        None, "Constant loss scale of fp16; it adapts itself if not given.", example=65536.0, above=0
    )
    initial_loss_scale: float = option(
        2.0**32, "Loss scale of the first fp16 iteration; halved until it fits.", above=0
    )
    min_loss_scale: float = option(1.0, "Least loss scale of fp16.", above=0)
    loss_scale_window: int = option(
        1000, "fp16 iterations without an overflow after which the scale doubles.", minimum=1
    )
    hysteresis: int = option(2, "fp16 overflows, in a row or not, before the scale is halved.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which tokens, in which order, under which tokenizer."""

    data_path: tuple[str, ...] = option(
        (),
        "Dataset prefixes (files PREFIX.bin and PREFIX.idx): one, several, or weight prefix weight prefix ...",
        example=("0.7", "data/a_text_document", "0.3", "data/b_text_document"),
    )
    split: str | None = option(
        None,
        "Documents of --data-path for training, validation, test: three numbers >= 0; 969,30,1 if not given.",
        example="98,2,0",
    )
    train_data_path: tuple[str, ...] = option(
        (),
        "Training data, written like --data-path, where each split has datasets of its own.",
        example=("data/train_text_document",),
    )
    valid_data_path: tuple[str, ...] = option(
        (), "Validation data, beside --train-data-path.", example=("data/valid_text_document",)
    )
    test_data_path: tuple[str, ...] = option(
        (), "Test data, beside --train-data-path.", example=("data/test_text_document",)
    )
    tokenizer_type: str | None = option(
        None,
        "Kind of tokenizer.",
        choices=("ByteTokenizer", "SentencePieceTokenizer", "HuggingFaceTokenizer"),
    )
    tokenizer_model: str | None = option(
        None, "Tokenizer file (.model or tokenizer.json) or folder.", example="tokenizer.json"
    )
    eod_token: str | None = option(
        None, "Text of the end-of-document token, where the tokenizer does not say.", example="<|endoftext|>"
    )

    @property
    def document_split(self) -> str:
        """Shares of the documents of `data_path`."""
        return self.split or "969,30,1"

    @property
    def per_split(self) -> bool:
        """Whether each split has datasets of its own."""
        return bool(self.train_data_path or self.valid_data_path or self.test_data_path)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is saved and what a run starts from."""

    save: str | None = option(None, "Folder for checkpoints.", example="runs/a")
    load: str | None = option(
        None,
        "Folder to resume from; equal to --save: resume if there is a checkpoint, else start fresh.",
        example="runs/a",
    )
    save_interval: int | None = option(
        None, "Iterations between checkpoints; the end is always saved.", example=100, minimum=1
    )
    distrib_optim_fully_reshardable_mem_efficient: bool = option(
        False,
        "Save the distributed optimizer through one data-parallel rank: slower, but only that one holds 12 bytes of "
        "host memory for each parameter of its stage, not all.",
    )
    finetune: bool = option(False, "Load weights only: iteration 0, fresh optimizer and data.")
    init_backbone_from: str | None = option(
        None, "A plain checkpoint whose weights become the backbone under a new context head.", example="runs/gpt2"
    )

    @property
    def resumes_itself(self) -> bool:
        """Whether --load and --save name one folder: resume if there is a checkpoint, else start fresh."""
        return None not in (self.load, self.save) and os.path.realpath(self.load) == os.path.realpath(self.save)


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is told, where."""

    log_interval: int = option(10, "Iterations between log lines.", minimum=1)
    output_dir: str | None = option(
        None, "Folder for metrics.jsonl, config.yaml and exit.json; --save if not given.", example="runs/a"
    )
    peak_tflops: float | None = option(
        None, "Peak TFLOP/s of one device for MFU, where the device is not known to us.", example=989.0, above=0
    )
    progress_bar: bool = option(True, "A progress bar below the log lines, if stderr is a terminal.")
    tensorboard_dir: str | None = option(
        None, "Folder for TensorBoard's event files; needs tensorboard.", example="runs/a/tensorboard"
    )
    wandb_project: str | None = option(None, "Project of Weights & Biases to log to; needs wandb.", example="contextlm")
    wandb_exp_name: str | None = option(None, "Name of the run there; W&B's choice if not given.", example="a")
    wandb_save_dir: str | None = option(
        None, "Folder for W&B's own files; --output-dir if not given.", example="runs/a"
    )
    mlflow_experiment: str | None = option(None, "Experiment of MLflow to log to; needs mlflow.", example="contextlm")
    mlflow_tracking_uri: str | None = option(
        None, "MLflow's server or folder; MLflow's own choice if not given.", example="http://localhost:5000"
    )
    profile: bool = option(
        False, "Profile some iterations: trace_rankN.json.gz in --output-dir, for Perfetto, and a table."
    )
    profile_step_start: int = option(10, "Profile the iterations after this one ...", minimum=0)
    profile_step_end: int = option(12, "... up to this one.", minimum=1)
    profile_ranks: tuple[str, ...] = option(("0",), "Ranks that are profiled.")


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
