"""The `training` section: the loop."""

from __future__ import annotations

from dataclasses import dataclass

from contextlm.config.options import option


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
        "With --save, SIGTERM, SIGUSR1 and Ctrl-C finish the iteration, save and exit with status 75; a second one "
        "ends the process at once.",
    )
    signal_save_timeout_seconds: float = option(
        300.0, "After a signal, seconds for the iteration and the save; then the process ends without.", above=0
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
        "An iteration whose loss or gradient norm is NaN or infinite updates nothing, and --on-nan says what follows; "
        "a weight that is stops the run before it is saved. Not with the loss scale of fp16 that adapts itself: there "
        "an overflow is no fault.",
    )
    on_nan: str = option(
        "skip",
        "After an iteration whose loss or gradient norm is NaN or infinite: skip, go on with the next, and stop at the "
        "third in a row; abort, stop; rollback, go back to the newest checkpoint, at most three times. Found with the "
        "log line.",
        choices=("skip", "abort", "rollback"),
    )
    skip_spikes: bool = option(
        False,
        "An iteration updates nothing whose loss or gradient norm is more than 6 standard deviations above the mean of "
        "the last 128 that updated, once there are 64.",
    )
    iterations_to_skip: tuple[str, ...] = option(
        (), "Iterations whose batches are read and computed, but update nothing.", example=("1201", "1202")
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
    fp8_format: str | None = option(
        None,
        "Over --bf16, round what the linear layers of decoder and context predictor multiply to 8 bits: hybrid, inputs "
        "and weights to e4m3, gradients to e5m2. Needs --fp8-recipe, and CUDA of compute capability 8.9 or more.",
        choices=("hybrid",),
    )
    fp8_recipe: str | None = option(
        None,
        "Where the scales of --fp8-format come from: tensorwise, from the largest value that a tensor has at the "
        "moment.",
        choices=("tensorwise",),
    )
    compile: str = option(
        "auto",
        "Compile the model with torch.compile: model, as one graph; layer, layer by layer; off. auto is off on a CPU "
        "and with what cannot be compiled, else the largest that fits the other options.",
        choices=("auto", "off", "layer", "model"),
    )
    cuda_graphs: str = option(
        "auto",
        "Launch the kernels of the model, compiled as one graph, together: a small model computes faster than Python "
        "launches them one by one. auto is on for micro-batches of little work.",
        choices=("auto", "on", "off"),
    )
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
