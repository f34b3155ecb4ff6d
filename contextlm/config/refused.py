"""Real Megatron-LM options that ContextLM does not have, each with its reason and remedy.

A script written for Megatron-LM meets a sentence here, never "unrecognized", and never an option that is
silently ignored. A value that says what ContextLM does anyway (`--context-parallel-size 1`) passes. Owns
this table only.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

_YET = "not supported yet"
_NOT = "not supported in ContextLM because "


class Refusal(NamedTuple):
    """Why an option is refused.

    Attributes:
        names: flags without their dashes, separated by blanks; `*` stands for any ending.
        why: the sentence after the colon, with the remedy.
        harmless: values that ask for nothing, and so pass.
    """

    names: str
    why: str
    harmless: tuple[str, ...] = ()


_REFUSED = (
    # Parallelism
    Refusal(
        "context-parallel-size",
        _YET + ": attention and the context head need the whole sequence; use 1, and split what lies between them "
        "with --tensor-model-parallel-size and --sequence-parallel",
        ("1",),
    ),
    Refusal(
        "pipeline-model-parallel-layout account-for-embedding-in-pipeline-split account-for-loss-in-pipeline-split",
        _YET + "; give the stages that embed and compute the loss fewer layers with "
        "--decoder-first-pipeline-num-layers and --decoder-last-pipeline-num-layers",
    ),
    Refusal(
        "no-overlap-p2p-communication",
        _NOT + "without overlap the two sends of an interleaved pipeline of two stages cross, and gradients are "
        "silently wrong; drop it: other pipelines never overlap",
    ),
    Refusal(
        "overlap-p2p-communication-warmup-flush microbatch-group-size-per-virtual-pipeline-stage "
        "overlap-param-gather-with-optimizer-step no-align-grad-reduce no-align-param-gather",
        _YET + "; drop it: results are the same without",
    ),
    Refusal("ddp-num-buckets", _YET + "; use --ddp-bucket-size"),
    Refusal("ddp-average-in-collective", _NOT + "the loss is an average over tokens, not over ranks; drop it"),
    Refusal("grad-reduce-in-bf16", _NOT + "there is one spelling; use --no-accumulate-allreduce-grads-in-fp32"),
    Refusal(
        "use-torch-fsdp2 use-megatron-fsdp use-custom-fsdp data-parallel-sharding-strategy",
        _NOT + "tensor, pipeline and data parallelism with the distributed optimizer cover its sizes; drop it",
    ),
    Refusal("tp-comm-overlap* userbuffers*", _NOT + "it needs Transformer Engine's user buffers; drop it"),
    Refusal(
        "expert-model-parallel-size expert-tensor-parallel-size",
        _NOT + "its models have no experts; drop it",
        ("1",),
    ),
    # Precision and memory
    Refusal("fp8-* fp4-*", _YET + "; use --bf16"),
    Refusal("recompute-activations", _NOT + "there is one spelling; use --recompute-granularity selective"),
    Refusal(
        "distribute-saved-activations",
        _YET + "; use --sequence-parallel, which splits saved activations over the same ranks",
    ),
    Refusal(
        "cpu-offloading* optimizer-cpu-offload optimizer-offload-fraction",
        _NOT + "the distributed optimizer already shards these states; use more data-parallel processes",
    ),
    Refusal(
        "main-grads-dtype main-params-dtype exp-avg-dtype exp-avg-sq-dtype use-precision-aware-optimizer",
        _NOT + "the optimizer keeps fp32 states; drop it",
        ("fp32",),
    ),
    # Length of the run and batches
    Refusal(
        "decrease-batch-size-if-needed",
        _YET + "; drop it: batch sizes are multiples of --micro-batch-size x data-parallel ranks",
    ),
    Refusal("exit-signal", _NOT + "SIGTERM and SIGUSR1 are both handled; drop it", ("SIGTERM",)),
    # Optimizer
    Refusal("optimizer", _NOT + "its optimizer is AdamW; drop it", ("adam",)),
    Refusal("decoupled-lr decoupled-min-lr", _NOT + "every parameter has the same learning rate; use --lr"),
    Refusal("lr-warmup-init", _NOT + "warm-up starts at 0; drop it", ("0", "0.0")),
    # Data and tokenizers
    Refusal("data-args-path", _YET + "; give the blend with --data-path"),
    Refusal(
        "per-split-data-args-path",
        _YET + "; use --train-data-path, --valid-data-path and --test-data-path",
    ),
    Refusal(
        "vocab-file merge-file",
        _YET + "; use --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizer.json",
    ),
    Refusal("mock-data", _YET + "; make a small dataset with tools/preprocess_data.py"),
    Refusal("dataloader-type", _NOT + "samples come in one order fixed by data and --seed; drop it", ("single",)),
    Refusal(
        "data-cache-path num-dataset-builder-threads num-workers no-mmap-bin-files "
        "no-create-attention-mask-in-dataloader",
        _NOT + "its loader needs neither caches nor workers; drop it",
    ),
    Refusal(
        "reset-position-ids reset-attention-mask eod-mask-loss",
        _YET + "; drop it: samples are plain token streams",
    ),
    # Checkpoints
    Refusal("async-save", _YET + "; drop it"),
    Refusal("ckpt-format dist-ckpt-format", _NOT + "checkpoints are torch_dist; drop it", ("torch_dist",)),
    Refusal(
        "no-load-optim no-load-rng no-save-optim no-save-rng",
        _NOT + "a checkpoint is whole; use --finetune to take the weights only",
    ),
    Refusal("ckpt-step", _YET + "; the newest checkpoint in --load is taken"),
    Refusal(
        "use-checkpoint-args override-opt_param-scheduler use-checkpoint-opt_param-scheduler",
        _NOT + "a checkpoint brings its config.yaml; pass it with --config",
    ),
    Refusal("yaml-cfg", _NOT + "it has its own YAML reader; use --config FILE.yaml"),
    # Logs
    Refusal(
        "tensorboard-log-interval tensorboard-queue-size",
        _NOT + "every iteration is logged; use --tensorboard-dir alone",
    ),
    Refusal("wandb-entity", _YET + "; set WANDB_ENTITY"),
    Refusal("use-pytorch-profiler", _NOT + "--profile is torch's profiler; use --profile alone"),
    Refusal("record-memory-history", _YET + "; use --profile"),
    Refusal(
        "log-throughput log-params-norm log-timers-to-tensorboard log-memory-to-tensorboard "
        "log-world-size-to-tensorboard log-validation-ppl-to-tensorboard log-loss-scale-to-tensorboard",
        _NOT + "every measure is always logged; drop it",
    ),
    Refusal("log-progress log-num-zeros-in-grad timing-log-level", _NOT + "it does not measure this; drop it"),
    # Layers
    Refusal("use-mcore-models", _NOT + "megatron-core layers are always on; drop it"),
    Refusal("use-legacy-models", _NOT + "only megatron-core layers are used; drop it"),
    Refusal("swiglu squared-relu quick-geglu", _NOT + "GPT-2 and Pythia use GELU; use --gelu tanh or --gelu erf"),
    Refusal("normalization", _NOT + "GPT-2 and Pythia use LayerNorm; drop it", ("LayerNorm",)),
    Refusal("apply-layernorm-1p", _NOT + "GPT-2 and Pythia use plain LayerNorm; drop it"),
    Refusal(
        "group-query-attention num-query-groups",
        _NOT + "GPT-2 and Pythia have as many key as query heads; drop it",
    ),
    Refusal("kv-channels", _NOT + "a head is hidden size / heads wide; drop it"),
    Refusal(
        "disable-bias-linear add-qkv-bias qk-layernorm",
        _NOT + "GPT-2's and Pythia's layers are fixed; drop it",
    ),
    Refusal("use-rotary-position-embeddings", _NOT + "there is one spelling; use --position-embedding-type rope"),
    Refusal("no-position-embedding", _NOT + "there is one spelling; use --position-embedding-type rope"),
    Refusal(
        "use-rope-scaling rotary-scaling-factor rotary-seq-len-interpolation-factor window-size",
        _NOT + "GPT-2 and Pythia have neither; drop it",
    ),
    Refusal(
        "use-flash-attn attention-backend",
        _NOT + "attention always takes the fastest exact kernel of torch; drop it",
        ("auto",),
    ),
    Refusal(
        "no-masked-softmax-fusion no-bias-gelu-fusion no-bias-dropout-fusion no-rope-fusion "
        "no-gradient-accumulation-fusion cross-entropy-loss-fusion",
        _NOT + "fusions are chosen by the backend; drop it or use --transformer-impl",
    ),
    Refusal("init-method-xavier-uniform", _NOT + "weights start normal or small_init; use --init-method"),
    # Other models
    Refusal("num-experts moe-*", _NOT + "its models have no experts; drop it"),
    Refusal(
        "multi-latent-attention q-lora-rank kv-lora-rank",
        _NOT + "GPT-2 and Pythia use multi-head attention; drop it",
    ),
    Refusal("mtp-*", _NOT + "the context head takes the place of multi-token prediction; use --context-chunk-size"),
    Refusal("rl-* perform-rl-step", _NOT + "it only pretrains; drop it"),
    Refusal("vision-* img-h img-w num-classes patch-dim", _NOT + "it trains on text only; drop it"),
    Refusal(
        "retro-* bert-* mask-prob short-seq-prob encoder-* decoder-num-layers decoder-seq-length",
        _NOT + "its models are decoder-only; use --num-layers and --seq-length",
    ),
    Refusal("mamba-* hybrid-* is-hybrid-model", _NOT + "every layer has attention; drop it"),
    Refusal("spec", _NOT + "GPT-2 and Pythia layers are built in; use --transformer-impl"),
)

_NO_EXPERTS = _NOT + "its models have no experts; use core_attn or mlp"
_REFUSED_VALUES = {
    (
        "tokenizer_type",
        "GPT2BPETokenizer",
    ): "GPT2BPETokenizer: not supported yet; use HuggingFaceTokenizer with GPT-2's tokenizer.json",
    ("tokenizer_type", "TikTokenizer"): "TikTokenizer: not supported yet; use HuggingFaceTokenizer",
    ("tokenizer_type", "NullTokenizer"): "NullTokenizer: not supported yet; use ByteTokenizer",
    ("recompute_modules", "moe"): "moe: " + _NO_EXPERTS,
    ("recompute_modules", "moe_act"): "moe_act: " + _NO_EXPERTS,
    ("recompute_modules", "shared_experts"): "shared_experts: " + _NO_EXPERTS,
    (
        "recompute_modules",
        "mla_up_proj",
    ): "mla_up_proj: " + _NOT + "GPT-2 and Pythia use multi-head attention; use core_attn or mlp",
    ("recompute_modules", "layernorm"): "layernorm: not supported yet; use core_attn or mlp",
}


def refused_flag(name: str, values: Sequence[str]) -> tuple[bool, str | None]:
    """Whether `name` (no dashes in front) is in the table, and why `values` are refused (None: they pass)."""
    for refusal in _REFUSED:
        if any(fnmatchcase(name, pattern) for pattern in refusal.names.split()):
            passes = len(values) == 1 and values[0] in refusal.harmless
            return True, None if passes else refusal.why
    return False, None


def refused_value(field_name: str, value: object) -> str | None:
    """Why a real Megatron-LM value of a field we have is refused; None if it is not in the table."""
    return _REFUSED_VALUES.get((field_name, str(value)))
