"""Layouts of a model of 4 layers by name: processes, and the values of the configuration."""

from __future__ import annotations

from typing import Any


def _layout(world: int, tensor: int = 1, pipeline: int = 1, **values: Any) -> tuple[int, dict[str, Any]]:
    sizes = {"tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline}
    return world, sizes | values


SP, INTERLEAVED = {"sequence_parallel": True}, {"num_virtual_stages_per_pipeline_rank": 2}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": _layout(1),
    "TP2": _layout(2, tensor=2),
    "TP2 SP": _layout(2, tensor=2, **SP),
    "TP4 SP": _layout(4, tensor=4, **SP),
    "PP2": _layout(2, pipeline=2),
    "PP4": _layout(4, pipeline=4),
    "PP2 interleaved": _layout(2, pipeline=2, **INTERLEAVED),
    # With E = 3 the last stage holds the head's layer alone.
    "PP2 of 3 + 1 layers": _layout(2, pipeline=2, decoder_last_pipeline_num_layers=1),
    "PP2 of 1 + 3 layers": _layout(2, pipeline=2, decoder_first_pipeline_num_layers=1),
    "PP3 of 1 + 2 + 1 layers": _layout(
        3, pipeline=3, decoder_first_pipeline_num_layers=1, decoder_last_pipeline_num_layers=1
    ),
    "DP2": _layout(2),
    "DP4": _layout(4),
    "TP2 x PP2": _layout(4, tensor=2, pipeline=2),
    "TP2 SP x PP2": _layout(4, tensor=2, pipeline=2, **SP),
    "TP2 SP x PP2 interleaved": _layout(4, tensor=2, pipeline=2, **SP, **INTERLEAVED),
    "TP2 SP x DP2": _layout(4, tensor=2, **SP),
    "PP2 x DP2": _layout(4, pipeline=2),
    "PP2 interleaved x DP2": _layout(4, pipeline=2, **INTERLEAVED),
}
