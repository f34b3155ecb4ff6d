"""The layout matrix: the options that may meet. covering.py brings them together, matrix_rows.py lists the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.small_configs import BACKBONES, FUSIONS

GLOBAL_BATCH_SIZE, NUM_LAYERS, MAX_PROCESSES = 8, 6, 8

TENSORS: dict[str, dict[str, Any]] = {
    "TP1": {"tensor_model_parallel_size": 1},
    "TP2": {"tensor_model_parallel_size": 2},
    "TP2 SP": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
    "TP4": {"tensor_model_parallel_size": 4},
    "TP4 SP": {"tensor_model_parallel_size": 4, "sequence_parallel": True},
}


def _stages(count: int, first: int | None = None, last: int | None = None, chunks: int | None = None) -> dict[str, Any]:
    return {
        "pipeline_model_parallel_size": count,
        "decoder_first_pipeline_num_layers": first,
        "decoder_last_pipeline_num_layers": last,
        "num_virtual_stages_per_pipeline_rank": chunks,
    }


# With E = 5 the last stage of PP2 of 5 + 1 layers holds the head's layer alone, beside norm and output; with E = 3 the
# middle one of ALONE holds nothing else at all.
ALONE = "PP3 of 3 + 1 + 2 layers"
PIPELINES: dict[str, dict[str, Any]] = {
    "PP1": _stages(1),
    "PP2": _stages(2),
    "PP3": _stages(3),
    "PP2 of 5 + 1 layers": _stages(2, last=1),
    "PP2 of 1 + 5 layers": _stages(2, first=1),
    "PP4 of 1 + 2 + 2 + 1 layers": _stages(4, first=1, last=1),
    ALONE: _stages(3, first=3, last=2),
    "PP2 interleaved": _stages(2, chunks=3),
    "PP2 interleaved of 2 + 4 layers": _stages(2, first=2, chunks=2),
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
    "fp16, sums in fp16": {"fp16": True, "initial_loss_scale": 16.0, "accumulate_allreduce_grads_in_fp32": False},
}
# The ends of documents: nothing, where positions begin anew, what attention sees, and what is scored.
_LOSS, _POSITIONS, _ATTENTION = (
    {flag: True} for flag in ("eod_mask_loss", "reset_position_ids", "reset_attention_mask")
)
DOCUMENTS: dict[str, dict[str, Any]] = {
    "joined": {},
    "positions": _POSITIONS,
    "attention, loss": _ATTENTION | _LOSS,
    "positions, attention, loss": _POSITIONS | _ATTENTION | _LOSS,
}
DROPOUTS: dict[str, dict[str, Any]] = {"0": {}, "0.1": {"hidden_dropout": 0.1, "attention_dropout": 0.1}}


class Row(NamedTuple):
    """One value of each factor, by its name."""

    tensor: str
    pipeline: str
    copies: int
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
    documents: str

    @property
    def layout(self) -> str:
        """Its name."""
        return f"{self.tensor} x {self.pipeline} x DP{self.copies}"

    @property
    def world_size(self) -> int:
        """Processes."""
        return processes(self.tensor, self.pipeline, self.copies)

    def model(self) -> dict[str, Any]:
        """What says which function is computed, and the gradients of which."""
        return DOCUMENTS[self.documents] | {
            "num_layers": NUM_LAYERS,
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
            | TENSORS[self.tensor]
            | PIPELINES[self.pipeline]
            | OPTIMIZERS[self.optimizer]
            | RECOMPUTES[self.recompute]
            | PRECISIONS[self.precision]
            | DROPOUTS[self.dropout]
            | {
                "micro_batch_size": GLOBAL_BATCH_SIZE // (self.micro_batches * self.copies),
                "global_batch_size": GLOBAL_BATCH_SIZE,
            }
        )


FACTORS: Mapping[str, tuple[Any, ...]] = {
    "tensor": tuple(TENSORS),
    "pipeline": tuple(name for name in PIPELINES if name != ALONE),
    "copies": (1, 2, 4),
    "optimizer": tuple(OPTIMIZERS),
    "recompute": tuple(RECOMPUTES),
    "precision": tuple(PRECISIONS),
    "dropout": tuple(DROPOUTS),
    "micro_batches": (1, 2, 4),
    "backbone": tuple(BACKBONES),
    "encoder_layers": (0, 1, 3, 5),
    "predictor_layers": (0, 1, 2),
    "fusion": FUSIONS,
    "stop_gradient": (False, True),
    "seq_length": (64, 68),  # 17 tokens on each rank of TP 4, 34 on each of TP 2: no multiple of w
    "documents": tuple(DOCUMENTS),
}


def processes(tensor: str = "TP1", pipeline: str = "PP1", copies: int = 1, **others: Any) -> int:
    """Of a row, or of as much of it as is known."""
    ranks_of_a_layer = TENSORS[tensor]["tensor_model_parallel_size"]
    return ranks_of_a_layer * PIPELINES[pipeline]["pipeline_model_parallel_size"] * copies


def possible(values: Mapping[str, Any], max_processes: int = MAX_PROCESSES) -> bool:
    """Whether values, one of each of some factors, may meet."""
    if processes(**values) > max_processes:
        return False
    if "micro_batches" not in values:
        return True
    micro_batches, copies, pipeline = values["micro_batches"], values.get("copies", 1), values.get("pipeline", "PP1")
    # An interleaved pipeline takes whole rounds of its two stages.
    return micro_batches * copies <= GLOBAL_BATCH_SIZE and not ("interleaved" in pipeline and micro_batches % 2)
