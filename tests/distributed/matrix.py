"""The layout matrix: every option that may meet another, and a set of rows in which every pair of them meets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.small_configs import BACKBONES, FUSIONS

GLOBAL_BATCH_SIZE = 8


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
_PLAIN = {"use_distributed_optimizer": False}
_OVERLAP, _SMALL_BUCKETS = {"overlap_grad_reduce": True}, {"ddp_bucket_size": 20_000}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "distributed": {},
    "distributed, overlap": _OVERLAP | _SMALL_BUCKETS,
    "distributed, overlap and gather": {"overlap_param_gather": True} | _OVERLAP | _SMALL_BUCKETS,
    "plain": _PLAIN,
    "plain, overlap": _PLAIN | _OVERLAP | _SMALL_BUCKETS,
}


def _full(method: str, layers: int) -> dict[str, Any]:
    return {"recompute_granularity": "full", "recompute_method": method, "recompute_num_layers": layers}


RECOMPUTES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "uniform 1": _full("uniform", 1),
    "uniform 2": _full("uniform", 2),
    "uniform 4": _full("uniform", 4),
    "block 1": _full("block", 1),
    "attention": {"recompute_granularity": "selective", "recompute_modules": ("core_attn",)},
    "attention and MLP": {"recompute_granularity": "selective", "recompute_modules": ("core_attn", "mlp")},
}
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": True},
    "bf16, sums in bf16": {"bf16": True, "accumulate_allreduce_grads_in_fp32": False},
    "fp16": {"fp16": True, "initial_loss_scale": 16.0},
}
DROPOUTS: dict[str, dict[str, Any]] = {"0": {}, "0.1": {"hidden_dropout": 0.1, "attention_dropout": 0.1}}


class Row(NamedTuple):
    """One value of each factor, by its name."""

    layout: str
    optimizer: str
    recompute: str
    precision: str
    dropout: str
    micro_batches: int
    backbone: str
    encoder_layers: int
    predictor_layers: int
    fusion: str
    stop_gradient: bool
    seq_length: int

    @property
    def world_size(self) -> int:
        """Processes."""
        return LAYOUTS[self.layout][0]

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model."""
        world_size, values = LAYOUTS[self.layout]
        return world_size // (values["tensor_model_parallel_size"] * values["pipeline_model_parallel_size"])

    def model(self) -> dict[str, Any]:
        """What says which function is computed, and the gradients of which."""
        return {
            "context_encoder_layers": self.encoder_layers,
            "context_predictor_layers": self.predictor_layers,
            "context_fusion": self.fusion,
            "context_stop_gradient": self.stop_gradient,
            "seq_length": self.seq_length,
            "lr": 1e-3,
        }

    def values(self) -> dict[str, Any]:
        """The whole configuration."""
        return (
            self.model()
            | LAYOUTS[self.layout][1]
            | OPTIMIZERS[self.optimizer]
            | RECOMPUTES[self.recompute]
            | PRECISIONS[self.precision]
            | DROPOUTS[self.dropout]
            | {
                "micro_batch_size": GLOBAL_BATCH_SIZE // (self.micro_batches * self.data_parallel_size),
                "global_batch_size": GLOBAL_BATCH_SIZE,
            }
        )


FACTORS: Mapping[str, tuple[Any, ...]] = {
    "layout": tuple(LAYOUTS),
    "optimizer": tuple(OPTIMIZERS),
    "recompute": tuple(RECOMPUTES),
    "precision": tuple(PRECISIONS),
    "dropout": tuple(DROPOUTS),
    "micro_batches": (1, 2, 4),
    "backbone": tuple(BACKBONES),
    "encoder_layers": (0, 1, 2, 3),
    "predictor_layers": (0, 1, 2),
    "fusion": FUSIONS,
    "stop_gradient": (False, True),
    "seq_length": (64, 68),  # 17 tokens on each rank of TP 4, 34 on each of TP 2: no multiple of w
}


def possible(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Whether two values may meet."""
    pair = {one[0]: one[1], other[0]: other[1]}
    if {"layout", "micro_batches"} == pair.keys():
        layout, micro_batches = pair["layout"], pair["micro_batches"]
        # An interleaved pipeline takes whole rounds; 4 copies x 4 micro-batches are more than the global batch.
        return not ("interleaved" in layout and micro_batches % 2) and not (layout == "DP4" and micro_batches == 4)
    return True


def all_pairs() -> set[frozenset[tuple[str, Any]]]:
    """Every pair of values of two factors that may meet."""
    return {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(FACTORS, 2)
        for x in FACTORS[a]
        for y in FACTORS[b]
        if possible((a, x), (b, y))
    }


def pairs_of(row: Row) -> set[frozenset[tuple[str, Any]]]:
    """The pairs that meet in a row."""
    return {frozenset(pair) for pair in itertools.combinations(row._asdict().items(), 2)}


def covering_rows() -> Iterator[Row]:
    """Rows in which every possible pair meets at least once; the first ones cover the most.

    Greedy: each row begins with a pair that has not met, and takes for every other factor the value that meets
    the most values for the first time.
    """
    left = sorted(all_pairs(), key=lambda pair: sorted(map(str, pair)))
    uncovered = dict.fromkeys(left)
    while uncovered:
        values = dict(next(iter(uncovered)))
        for name in sorted(FACTORS, key=lambda name: -len(FACTORS[name])):
            if name not in values:
                fitting = [x for x in FACTORS[name] if all(possible((name, x), given) for given in values.items())]
                values[name] = max(
                    fitting, key=lambda x: sum(frozenset(((name, x), given)) in uncovered for given in values.items())
                )
        row = Row(**values)
        for pair in pairs_of(row):
            uncovered.pop(pair, None)
        yield row
