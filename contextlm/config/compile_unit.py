"""What `--compile` comes to: what of the model is compiled, and what speaks against it."""

from __future__ import annotations

from contextlm.config.schema import Config

_LITTLE_WORK = 1e13  # FLOPs of a micro-batch's products, forward and backward


def compile_unit(config: Config, data_parallel_size: int, on_cuda: bool) -> str:
    """What is compiled: "model", "layer" or "off".

    Args:
        config: the resolved configuration.
        data_parallel_size: copies of the model; one has nobody to overlap its messages with.
        on_cuda: whether the model lies on a CUDA device; elsewhere `auto` compiles nothing.
    """
    if config.training.compile != "auto":
        return config.training.compile
    if not on_cuda or _against_any(config):
        return "off"
    return "layer" if _against_whole(config, data_parallel_size) else "model"


def replays(config: Config, data_parallel_size: int, on_cuda: bool) -> bool:
    """Whether the kernels of a pass are launched together, as a CUDA graph: the arguments of `compile_unit`.

    By itself it is so where they take less than about 15 ms on a fast device, which is what launching them takes.
    """
    if config.training.cuda_graphs == "off" or compile_unit(config, data_parallel_size, on_cuda) != "model":
        return False
    model, tokens = config.model, config.training.micro_batch_size * config.model.seq_length
    products = 72 * model.num_layers * model.hidden_size**2 * tokens
    return on_cuda and (config.training.cuda_graphs == "on" or products < _LITTLE_WORK)


def compile_problems(config: Config, data_parallel_size: int) -> list[str]:
    """Why what `--compile` and `--cuda-graphs` demand cannot be had."""
    return [*_not_compiled(config, data_parallel_size), *_not_replayed(config, data_parallel_size)]


def _not_replayed(config: Config, data_parallel_size: int) -> list[str]:
    unit = compile_unit(config, data_parallel_size, on_cuda=True)
    if config.training.cuda_graphs != "on" or unit == "model":
        return []
    reasons = [*_against_any(config), *_against_whole(config, data_parallel_size)]
    reason = reasons[0] if config.training.compile == "auto" else f"--compile {unit} is given"
    return [f"--cuda-graphs on: needs the model as one graph, but {reason}; drop that, or use --cuda-graphs auto"]


def _not_compiled(config: Config, data_parallel_size: int) -> list[str]:
    unit = config.training.compile
    if unit not in ("layer", "model"):
        return []
    found = [f"--compile {unit}: {reason}; drop that, or use --compile off" for reason in _against_any(config)]
    if unit == "model" and not found:
        found = [
            f"--compile {unit}: {reason}; use --compile layer" for reason in _against_whole(config, data_parallel_size)
        ]
    return found


def _against_any(config: Config) -> list[str]:
    model, parallel, training, data = config.model, config.parallel, config.training, config.data
    dropouts = {"--hidden-dropout": model.hidden_dropout, "--attention-dropout": model.attention_dropout}
    dropped = " and ".join(f"{flag} {share:g}" for flag, share in dropouts.items() if share > 0)
    resets = {"--reset-position-ids": data.reset_position_ids, "--reset-attention-mask": data.reset_attention_mask}
    told_apart = " and ".join(flag for flag, is_given in resets.items() if is_given)
    reasons = {
        f"--tensor-model-parallel-size {parallel.tensor_model_parallel_size} exchanges messages inside a layer": (
            parallel.tensor_model_parallel_size > 1
        ),
        f"{dropped}: random numbers come from generators that a graph cannot hold": bool(dropped),
        "--recompute-granularity selective cuts a layer in pieces": training.recompute_granularity == "selective",
        "--overlap-param-gather waits for weights inside a layer": parallel.overlap_param_gather,
        f"{told_apart}: each batch has another shape": bool(told_apart),
        "--transformer-impl transformer_engine brings its own kernels": model.transformer_impl == "transformer_engine",
    }
    return [reason for reason, holds in reasons.items() if holds]


def _against_whole(config: Config, data_parallel_size: int) -> list[str]:
    parallel, stages = config.parallel, config.parallel.pipeline_model_parallel_size
    reasons = {
        f"--pipeline-model-parallel-size {stages} makes stages, and none is the whole model": stages > 1,
        "--recompute-granularity full computes layers again one by one": (
            config.training.recompute_granularity == "full"
        ),
        "--overlap-grad-reduce sends what a finished layer yields, and one graph finishes all at once": (
            parallel.overlap_grad_reduce and data_parallel_size > 1
        ),
    }
    return [reason for reason, holds in reasons.items() if holds]
