"""Rows of the layout matrix, run and compared.

In fp32 a row must be its reference to rounding. In 16 bits a layout rounds elsewhere, one draw of chance against
another: a row may be `SLACK_OF_16_BITS` times as far from one process in fp32 as one process in that precision is, the
farthest of three that divide the batch otherwise. With dropout the layouts draw different numbers, so a row is held
against its own layout without recomputation, overlap and the plain optimizer: these must not change the first
gradients, and what follows by no more than 16 bits round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.distributed.layout_cases import (
    cross_sends,
    forget_documents,
    keep_gradients,
    keep_shares,
    save_random_weights,
    score_ends,
    train,
    unmask_padding,
)
from tests.distributed.matrix import Row
from tests.distributed.matrix_rows import BASE
from tests.distributed.pool import Pool

BOUNDS = {"loss": 1e-5, "norm": 1e-4, "head": 1e-4}
SLACK_OF_16_BITS = 2
ALL_ENDS = "positions, attention, loss"
FAULTS = {
    "a rank keeps its share": (BASE._replace(tensor="TP2 SP"), keep_shares),
    "a rank keeps its gradients": (BASE._replace(tensor="TP2 SP"), keep_gradients),
    "one of four keeps its share": (BASE._replace(tensor="TP4 SP"), keep_shares),
    "one of four keeps its gradients": (BASE._replace(tensor="TP4 SP"), keep_gradients),
    "sends cross": (BASE._replace(pipeline="PP2 interleaved", micro_batches=4), cross_sends),
    "a stage forgets the documents": (BASE._replace(pipeline="PP2", documents=ALL_ENDS), forget_documents),
    "a rank takes its documents for all": (BASE._replace(tensor="TP2 SP", documents=ALL_ENDS), keep_shares),
    "a rank scores ends of documents": (BASE._replace(copies=2, documents=ALL_ENDS), score_ends),
    "padding is scored": (BASE._replace(tensor="TP2"), unmask_padding),
    "padding is scored on the last stage": (BASE._replace(pipeline="PP2"), unmask_padding),
}


class Runs:
    """Runs from shared checkpoints, each made once."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder = pool, folder
        self.checkpoints: dict[str, str] = {}
        self.results: dict[Row, list[dict[str, Any]]] = {}

    def checkpoint(self, row: Row) -> str:
        """All weights random and non-zero, saved by one process in fp32."""
        model = row.model()
        name = "-".join([row.backbone, *map(str, model.values())])
        if name not in self.checkpoints:
            batch = {"micro_batch_size": 2, "global_batch_size": 4}
            folder = str(self.folder / name)
            self.pool.run(save_random_weights, 1, folder=folder, backbone=row.backbone, values=model | batch)
            self.checkpoints[name] = folder
        return self.checkpoints[name]

    def get(self, row: Row) -> list[dict[str, Any]]:
        """What the ranks of a row computed."""
        if row not in self.results:
            self.results[row] = self.train(row)
        return self.results[row]

    def train(self, row: Row, **sabotage: Any) -> list[dict[str, Any]]:
        """The same, afresh."""
        return self.pool.run(
            train,
            row.world_size,
            folder=self.checkpoint(row),
            backbone=row.backbone,
            values=row.values(),
            **sabotage,
        )


def reference(row: Row) -> Row:
    """The row that a row must compute the same as; never itself, but for one process as plain as can be."""
    simple = row._replace(optimizer="distributed", recompute="nothing")
    if row.dropout == "0":
        return simple._replace(tensor="TP1", pipeline="PP1", copies=1, micro_batches=2)
    return simple if simple != row else row._replace(optimizer="plain")


def comparison(row: Row) -> Row:
    """The row that a row is compared with: its reference, in fp32 where that tells something."""
    return reference(row)._replace(precision="fp32") if row.dropout == "0" else reference(row)


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, float]:
    """The greatest relative differences on any rank: of losses, gradient norms and the head's first gradients (L2).

    The gate's gradient may cancel to nearly nothing: below a thousandth of the head's it is compared with that.
    """
    losses = next(rank["losses"] for rank in expected if rank["losses"] is not None)
    gradients = {name: g for rank in expected for name, g in rank["head"].items()}
    assert gradients.keys() == {name for rank in found for name in rank["head"]}
    sizes = {name: float(np.linalg.norm(g)) for name, g in gradients.items()}
    assert all(size > 0 for size in sizes.values())
    scales = sizes | {"gate": max(sizes.get("gate", 0.0), 1e-3 * float(np.linalg.norm(list(sizes.values()))))}
    return {
        "loss": _greatest(np.divide(rank["losses"], losses) - 1 for rank in found if rank["losses"] is not None),
        "norm": _greatest(np.divide(rank["norms"], expected[0]["norms"]) - 1 for rank in found),
        "head": _greatest(
            np.linalg.norm(g - gradients[name]) / scales[name] for rank in found for name, g in rank["head"].items()
        ),
    }


def _greatest(differences: Any) -> float:
    """Its absolute value; NaN if there is one."""
    return float(np.max(np.abs([0.0, *(x for difference in differences for x in np.ravel(difference))])))


def rounding(runs: Runs, row: Row) -> dict[str, float]:
    """How far one process is from fp32 in a row's precision: the farthest of three divisions of the batch."""
    one = reference(row._replace(dropout="0"))
    exact = runs.get(one._replace(precision="fp32"))
    draws = [differences(exact, runs.get(one._replace(micro_batches=count))) for count in (1, 2, 4)]
    return {kind: max(limit, *(draw[kind] for draw in draws)) for kind, limit in BOUNDS.items()}


def bounds(runs: Runs, row: Row) -> dict[str, float]:
    """How far a row may be from the one that it is compared with."""
    if row.precision == "fp32":
        return BOUNDS
    limits = {kind: SLACK_OF_16_BITS * distance for kind, distance in rounding(runs, row).items()}
    return limits if row.dropout == "0" else limits | {"head": BOUNDS["head"]}


def check_row(runs: Runs, row: Row) -> None:
    """A row computes what its reference does, and its copies of a weight are equal."""
    ranks = runs.get(row)
    found, limits = differences(runs.get(comparison(row)), ranks), bounds(runs, row)
    assert all(found[kind] <= limit for kind, limit in limits.items()), (found, limits, row)
    assert [sentence for rank in ranks for sentence in rank["replicas"]] == [], row


def check_fault(runs: Runs, fault: str) -> None:
    """A row that is right is ten bounds away from it with a fault."""
    row, sabotage = FAULTS[fault]
    check_row(runs, row)
    found = differences(runs.get(comparison(row)), runs.train(row, sabotage=sabotage))
    assert any(found[kind] > 10 * limit for kind, limit in bounds(runs, row).items()), found
