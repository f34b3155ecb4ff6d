"""The rows of the layout matrix: where every pair of options meets, and what no pair shows."""

from __future__ import annotations

from tests.distributed.covering import covering_rows
from tests.distributed.matrix import ALONE, Row

EXACT = {"precision": "fp32", "dropout": "0"}
BASE = Row(
    tensor="TP1", pipeline="PP1", copies=1, optimizer="distributed", recompute="nothing", precision="fp32", dropout="0",
    micro_batches=2, backbone="gpt2", encoder_layers=3, predictor_layers=2, fusion="gated", stop_gradient=False,
    seq_length=68, documents="joined",
)  # fmt: skip


def exact(row: Row) -> Row:
    """The row in fp32 without dropout."""
    return row._replace(**EXACT)


PAIRS = covering_rows(2)
# Every value once, on so many processes as a machine has GPUs.
VALUES = {count: covering_rows(1, max_processes=count) for count in (1, 2, 4)}
# With S = 68 chunks lie on two ranks of TP 2 and TP 4; with S = 66 on TP 2, and the last chunk lacks two tokens.
BEYOND = [
    BASE._replace(tensor="TP2 SP"),
    BASE._replace(tensor="TP2 SP", seq_length=66),
    BASE._replace(tensor="TP2 SP", seq_length=66, precision="bf16", recompute="uniform 2", backbone="pythia"),
    BASE._replace(tensor="TP4 SP"),
    BASE._replace(tensor="TP2 SP", pipeline="PP2 interleaved", seq_length=66, fusion="norm_add"),
    BASE._replace(tensor="TP2 SP", copies=2, seq_length=66, optimizer="distributed, overlap and gather"),
    BASE._replace(pipeline=ALONE, seq_length=66),
    BASE._replace(tensor="TP2 SP", pipeline=ALONE),
    BASE._replace(pipeline="PP4 of 1 + 2 + 2 + 1 layers", seq_length=66, recompute="block 1"),
    BASE._replace(pipeline="PP2 interleaved", micro_batches=4),
    BASE._replace(tensor="TP2 SP", pipeline="PP2 interleaved", seq_length=66, documents="positions, attention, loss"),
    BASE._replace(copies=2, stop_gradient=True, backbone="pythia", optimizer="plain, overlap"),
]
# In `make test`.
ALWAYS = [*map(exact, VALUES[4]), *BEYOND[:3], BEYOND[6], VALUES[4][2], VALUES[4][4], VALUES[4][5]]
ROWS = list(
    dict.fromkeys(
        [
            *ALWAYS,
            *BEYOND,
            *(row for rows in (*VALUES.values(), PAIRS) for row in rows),
            *(exact(row) for rows in (*VALUES.values(), PAIRS) for row in rows),
        ]
    )
)
