"""What the head adds to the messages between ranks, counted with their bytes.

Nothing at a boundary of pipeline stages; under sequence parallelism one [C, B, H] all-reduce forward (contexts)
and one backward (gradient of the predictions). Beside these, as any tensor-parallel layer, each predictor layer
has two all-reduces forward and two backward, of [C, B, H] too: C = S // w chunks, with w = 4 a quarter of the
tokens. A model without the head is measured beside it, and the difference counts.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.distributed.communication_cases import Message, Traffic, exchange_tokens, traffic
from tests.distributed.layouts import LAYOUTS
from tests.distributed.matrix import RECOMPUTES
from tests.distributed.pool import Pool

TOKENS, BATCH, HIDDEN = 64, 2, 64
CHUNK_SHAPE = (TOKENS // 4, BATCH, HIDDEN)
CONTEXTS = Message("allreduce_", CHUNK_SHAPE, TOKENS // 4 * BATCH * HIDDEN * 4)
BOUNDARY_BYTES = TOKENS * BATCH * HIDDEN * 4


class Runs:
    """Traffic of configurations, each measured once."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.known = pool, dict[Any, Any]()

    def get(self, layout: str, recompute: str = "nothing", backbone: str = "gpt2", **values: Any) -> list[Traffic]:
        """By rank."""
        key = (layout, recompute, backbone, *values.items())
        if key not in self.known:
            world_size, parallel = LAYOUTS[layout]
            shape = {"seq_length": TOKENS, "micro_batch_size": BATCH, "global_batch_size": 2 * BATCH}
            sabotage = values.pop("sabotage", None)
            self.known[key] = self.pool.run(
                traffic,
                world_size,
                backbone=backbone,
                values=shape | parallel | RECOMPUTES[recompute] | values,
                sabotage=sabotage,
            )
        return self.known[key]

    def added(self, *case: str, **values: Any) -> list[tuple[Counter, Counter]]:
        """By rank, the messages forward and backward of a micro-batch that the head adds; it takes none away."""
        plain, found = self.get(*case, context_chunk_size=0), self.get(*case, **values)
        for before, after in zip(plain, found, strict=True):
            assert not before.forward - after.forward and not before.backward - after.backward
        return [(y.forward - x.forward, y.backward - x.backward) for x, y in zip(plain, found, strict=True)]


@pytest.fixture(scope="module")
def runs(pool: Pool) -> Runs:
    return Runs(pool)


@pytest.mark.parametrize(
    ("layout", "encoder_layers"),
    [
        ("PP2", 1),
        ("PP2", 2),
        ("PP2 interleaved", 2),
        *(pytest.param("PP2 interleaved", layer, marks=pytest.mark.full) for layer in (0, 1, 3)),
    ],
)
def test_a_stage_boundary_carries_the_same_with_the_head_on_either_side(
    runs: Runs, layout: str, encoder_layers: int
) -> None:
    # Without interleaving layers 0 and 1 are before the boundary, with it 0 and 2.
    assert runs.added(layout, context_encoder_layers=encoder_layers) == [(Counter(), Counter())] * 2
    boundaries = 1 if layout == "PP2" else 3
    first, second = runs.get(layout, context_encoder_layers=encoder_layers)
    for sent, received in ((first.forward, second.forward), (second.backward, first.backward)):
        messages = {"send": sum_of(sent, "send"), "recv_": sum_of(received, "recv_")}
        # All but one boundary of an interleaved pipeline lead to the next stage; one leads back to the first.
        count = (boundaries + 1) // 2
        assert messages == dict.fromkeys(("send", "recv_"), (count, count * BOUNDARY_BYTES))


def sum_of(counts: Counter[Message], operation: str) -> tuple[int, int]:
    """Messages of one kind, and their bytes."""
    found = [(count, count * message.num_bytes) for message, count in counts.items() if message.operation == operation]
    return sum(count for count, _ in found), sum(num_bytes for _, num_bytes in found)


@pytest.mark.parametrize("predictor_layers", [0, 2])
def test_one_exchange_of_contexts_under_sequence_parallelism(runs: Runs, predictor_layers: int) -> None:
    expected = Counter({CONTEXTS: 1 + 2 * predictor_layers})
    added = runs.added("TP2 SP", context_predictor_layers=predictor_layers)
    assert added == [(expected, expected)] * 2


@pytest.mark.full
@pytest.mark.parametrize("predictor_layers", [0, 2])
def test_one_exchange_with_the_other_backbone(runs: Runs, predictor_layers: int) -> None:
    expected = Counter({CONTEXTS: 1 + 2 * predictor_layers})
    added = runs.added("TP2 SP", "nothing", "pythia", context_predictor_layers=predictor_layers)
    assert added == [(expected, expected)] * 2


@pytest.mark.parametrize("backbone", ["gpt2", pytest.param("pythia", marks=pytest.mark.full)])
def test_one_exchange_on_the_stage_of_the_head_alone(runs: Runs, backbone: str) -> None:
    """Nothing at the boundary, nothing on the other stage."""
    expected = Counter({CONTEXTS: 1 + 2 * 2})
    added = runs.added("TP2 SP x PP2", "nothing", backbone, context_encoder_layers=2)
    assert sorted(added, key=lambda both: both[0].total()) == [(Counter(), Counter())] * 2 + [(expected, expected)] * 2


@pytest.mark.full
def test_recomputation_repeats_the_forward_exchange(runs: Runs) -> None:
    added = runs.added("TP2 SP", "uniform 1", context_predictor_layers=2)
    assert added == [(Counter({CONTEXTS: 5}), Counter({CONTEXTS: 10}))] * 2


@pytest.mark.parametrize("predictor_layers", [pytest.param(0, marks=pytest.mark.full), 2])
def test_without_sequence_parallelism_only_the_predictor_communicates(runs: Runs, predictor_layers: int) -> None:
    expected = Counter({CONTEXTS: 2 * predictor_layers} if predictor_layers else {})
    assert runs.added("TP2", context_predictor_layers=predictor_layers) == [(expected, expected)] * 2


def test_a_step_has_no_more_messages(runs: Runs) -> None:
    """The gradients of the head's weights travel with those of the others: more bytes, no more messages."""
    for layout, values in (("TP2 SP", {"context_predictor_layers": 2}), ("PP2", {"context_encoder_layers": 1})):
        for plain, found in zip(runs.get(layout, context_chunk_size=0), runs.get(layout, **values), strict=True):
            counts = [Counter(message.operation for message in traffic.step.elements()) for traffic in (plain, found)]
            assert counts[0] == counts[1] and counts[0].total() > 0


def test_an_exchange_of_tokens_is_noticed(runs: Runs) -> None:
    tokens = Message("allreduce_", (TOKENS // 2, BATCH, HIDDEN), BOUNDARY_BYTES // 2)
    added = runs.added("TP2 SP", context_predictor_layers=0, sabotage=exchange_tokens)
    assert added == [(Counter({CONTEXTS: 1}), Counter({tokens: 1}))] * 2
