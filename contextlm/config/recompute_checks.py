"""Checks of what is computed again in the backward pass."""

from __future__ import annotations

from contextlm.config.megatron_flags import refused_value
from contextlm.config.pipeline import stage_parts
from contextlm.config.pipeline_checks import chunks_origin, pipeline_problems
from contextlm.config.schema import Config, TrainingConfig
from contextlm.config.suggestions import nearest_name

_MODULES = ("core_attn", "mlp")


def recompute_problems(config: Config) -> list[str]:
    """What is wrong with the recomputation of whole layers or of parts of them."""
    training = config.training
    how = {"--recompute-method": training.recompute_method, "--recompute-num-layers": training.recompute_num_layers}
    example = {"--recompute-method": "uniform", "--recompute-num-layers": "1"}
    problems = _modules(training)
    if training.recompute_granularity != "full":
        return problems + [
            f"{flag} {value}: only with --recompute-granularity full; add that or drop this"
            for flag, value in how.items()
            if value is not None
        ]
    if missing := [flag for flag, value in how.items() if value is None]:
        return [
            *problems,
            f"--recompute-granularity full: needs {' and '.join(missing)}; add e.g. "
            + " ".join(f"{flag} {example[flag]}" for flag in missing),
        ]
    return problems if pipeline_problems(config) else problems + _too_many(config)


def _modules(training: TrainingConfig) -> list[str]:
    modules = training.recompute_modules
    if not modules and training.recompute_granularity == "selective":
        return [f"--recompute-modules: names nothing; use {' or '.join(_MODULES)}"]
    if unknown := [module for module in modules if module not in _MODULES]:
        return [f"--recompute-modules {' '.join(modules)}: {_unknown(module)}" for module in unknown]
    if training.recompute_granularity == "selective" or modules == TrainingConfig.recompute_modules:
        return []
    return [
        f"--recompute-modules {' '.join(modules)}: only with --recompute-granularity selective; add that or drop this"
    ]


def _unknown(module: str) -> str:
    near = nearest_name(module, _MODULES)
    hint = f"did you mean {near}?" if near else f"use {' or '.join(_MODULES)}"
    return refused_value("recompute_modules", module) or f"{module} is no part of a layer; {hint}"


def _too_many(config: Config) -> list[str]:
    """`block` counts the layers of each part of the model; a group of `uniform` may be larger than what there is."""
    layers = config.training.recompute_num_layers or 1
    stages = range(config.parallel.pipeline_model_parallel_size)
    most = max(len(part) for stage in stages for part in stage_parts(config, stage))
    if config.training.recompute_method != "block" or layers <= most:
        return []
    where = "model chunk" if config.num_model_chunks > 1 else "pipeline stage"
    return [
        f"--recompute-num-layers {layers}: --recompute-method block takes the first of the {most} layers of a {where} "
        f"({chunks_origin(config)}); use at most {most}"
    ]
