"""What it means that an option is not the checkpoint's when a run is continued: every option has one class.

`checkpoints/continuation.py` shows the changed ones by class before a tensor is read; docs/options.md has the table.
"""

from __future__ import annotations

SAFE = "safe"
DATA_ORDER = "changes the data order"
FATAL = "fatal"

# The run goes on as another one. Who wants that names the option in --allow-changed-options. Option -> why.
_MOMENTS = "the moments of AdamW were averaged with it"
_FUNCTION = "another function is trained from here on"
_DOCUMENTS = "what is predicted from which tokens has another meaning"
_ROUNDED = "weights and activations were rounded so"
ALLOWABLE = {
    "adam_beta1": _MOMENTS,
    "adam_beta2": _MOMENTS,
    "adam_eps": _MOMENTS,
    "attention_dropout": _FUNCTION,
    "bf16": _ROUNDED,
    "context_stop_gradient": _FUNCTION,
    "eod_mask_loss": _DOCUMENTS,
    "eod_token": _DOCUMENTS,
    "fp16": _ROUNDED,
    "fp8_format": _ROUNDED,
    "fp8_recipe": _ROUNDED,
    "hidden_dropout": _FUNCTION,
    "reset_attention_mask": _DOCUMENTS,
    "reset_position_ids": _DOCUMENTS,
}
# The weights would mean nothing: no leave is given. `checkpoints/compatibility.py` compares them, some resolved.
OF_THE_WEIGHTS = (
    "context_chunk_size",
    "context_encoder_layers",
    "context_fusion",
    "context_pooling",
    "context_predictor_layers",
    "context_shift",
    "ffn_hidden_size",
    "gelu",
    "hidden_size",
    "max_position_embeddings",
    "norm_epsilon",
    "num_attention_heads",
    "num_layers",
    "parallel_residual",
    "position_embedding_type",
    "rotary_base",
    "rotary_percent",
    "untie_embeddings_and_output_weights",
)
# As little, but it is the tokenizer that is compared: its files may have been moved.
OF_THE_TOKENIZER = (
    "merge_file",
    "tiktoken_num_special_tokens",
    "tiktoken_pattern",
    "tokenizer_model",
    "tokenizer_type",
    "vocab_file",
    "vocab_size",
)
# Sample n becomes another one, unless the data is the same under another name: that is compared.
OF_THE_DATA = ("data_path", "seed", "seq_length", "split", "train_data_path")
# How long, how fast, on which processes, told how: the state of the run means the same.
HARMLESS = (
    "accumulate_allreduce_grads_in_fp32",
    "async_save",
    "check_for_nan_in_loss_and_grad",
    "check_replicas_interval",
    "clip_grad",
    "compile",
    "context_control",
    "cuda_graphs",
    "data_cache_path",
    "ddp_bucket_size",
    "decoder_first_pipeline_num_layers",
    "decoder_last_pipeline_num_layers",
    "distributed_backend",
    "distributed_timeout_minutes",
    "end_weight_decay",
    "eval_context_zeroed",
    "eval_interval",
    "eval_iters",
    "exit_duration_in_mins",
    "exit_interval",
    "exit_signal_handler",
    "full_validation",
    "global_batch_size",
    "hang_timeout_seconds",
    "hysteresis",
    "init_method",
    "init_method_std",
    "initial_loss_scale",
    "iterations_to_skip",
    "log_interval",
    "loss_scale",
    "loss_scale_window",
    "lr",
    "lr_decay_iters",
    "lr_decay_samples",
    "lr_decay_style",
    "lr_warmup_fraction",
    "lr_warmup_iters",
    "lr_warmup_samples",
    "lr_wsd_decay_iters",
    "lr_wsd_decay_samples",
    "lr_wsd_decay_style",
    "make_vocab_size_divisible_by",
    "micro_batch_size",
    "min_loss_scale",
    "min_lr",
    "mlflow_experiment",
    "mlflow_tracking_uri",
    "multiple_validation_sets",
    "num_layers_per_virtual_pipeline_stage",
    "num_virtual_stages_per_pipeline_rank",
    "on_nan",
    "output_dir",
    "output_layer_init_method",
    "overlap_grad_reduce",
    "overlap_param_gather",
    "peak_tflops",
    "pipeline_model_parallel_size",
    "profile",
    "profile_ranks",
    "profile_step_end",
    "profile_step_start",
    "progress_bar",
    "rampup_batch_size",
    "recompute_granularity",
    "recompute_method",
    "recompute_modules",
    "recompute_num_layers",
    "save",
    "save_best",
    "save_interval",
    "save_retain_interval",
    "save_total_limit",
    "sequence_parallel",
    "signal_save_timeout_seconds",
    "skip_spikes",
    "skip_train",
    "start_weight_decay",
    "tensor_model_parallel_size",
    "tensorboard_dir",
    "test_data_path",
    "train_iters",
    "train_samples",
    "transformer_impl",
    "use_distributed_optimizer",
    "valid_data_path",
    "wandb_exp_name",
    "wandb_project",
    "wandb_save_dir",
    "weight_decay",
    "weight_decay_incr_style",
)
# Safe, and of the start itself: there is nothing to compare.
OF_THE_START = (
    "allow_changed_options",
    "finetune",
    "init_backbone_from",
    "load",
    "load_fallback",
    "verify_integrity",
)

# Class, what becomes of the run, options; the safe ones come last.
CLASSES = (
    (
        DATA_ORDER,
        "other samples from here on, some tokens twice, some never; not where the same data was moved",
        OF_THE_DATA,
    ),
    (FATAL, "refused; `--allow-changed-options NAME ...` goes on all the same", tuple(ALLOWABLE)),
    (FATAL, "refused: the weights mean nothing to another model", OF_THE_WEIGHTS),
    (FATAL, "refused where it is another tokenizer, not where its files were moved", OF_THE_TOKENIZER),
    (SAFE, "the run goes on as you ask", (*HARMLESS, *OF_THE_START)),
)
