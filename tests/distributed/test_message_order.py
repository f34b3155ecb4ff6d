"""No two ranks wait for each other, though NCCL runs the operations of a communicator in the order of their calls.

gloo, over which tests run, matches sends and receives by their tags, whatever their order; here what ranks asked for is
replayed as NCCL runs it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

import pytest

from tests.distributed.layouts import LAYOUTS
from tests.distributed.order_cases import Operation, operations
from tests.distributed.pool import Pool

OVERLAPS = {"overlap_grad_reduce": True, "overlap_param_gather": True}
CASES = {
    "PP2 interleaved": {},
    "PP2 interleaved x DP2": OVERLAPS,
    "TP2 x PP2": {},
    "TP2 SP x PP2 interleaved": {},
}


@pytest.mark.parametrize("layout", CASES)
def test_what_ranks_ask_for_comes_to_its_end(pool: Pool, layout: str) -> None:
    world_size, parallel = LAYOUTS[layout]
    values = {"micro_batch_size": 1, "global_batch_size": 8} | parallel | CASES[layout]
    asked = pool.run(operations, world_size, values=values)
    assert all(len(of_rank) > 20 for of_rank in asked) and stuck(asked) == set()

    # A rank that asks for something a moment later than its peers expect.
    of_rank = list(asked[0])
    first = next(at for at, operation in enumerate(of_rank) if operation.name == "send")
    last = max(at for at, operation in enumerate(of_rank) if operation.group == of_rank[first].group)
    of_rank.insert(last, of_rank.pop(first))
    assert stuck([of_rank, *asked[1:]]) == {of_rank[last].group}


def stuck(asked: Sequence[Sequence[Operation]]) -> set[str]:
    """The groups whose operations never end, if each rank begins one when its last one of the group has ended.

    Args:
        asked: by rank.
    """
    waiting: dict[str, dict[int, deque[list[Operation]]]] = defaultdict(lambda: defaultdict(deque))
    for rank, of_rank in enumerate(asked):
        for operation in of_rank:
            launches = waiting[operation.group][rank]
            if not launches or launches[-1][0].launch != operation.launch:
                launches.append([])
            launches[-1].append(operation)
    return {group for group, by_rank in waiting.items() if not _ends(by_rank)}


def _ends(by_rank: dict[int, deque[list[Operation]]]) -> bool:
    """Whether all of a group's launches end."""
    while any(by_rank.values()):
        begun = {rank: launches[0] for rank, launches in by_rank.items() if launches}
        asked = ((rank, operation) for rank, launch in begun.items() for operation in launch)
        done = [(rank, operation) for rank, operation in asked if _meets(rank, operation, begun)]
        for rank, operation in done:
            begun[rank].remove(operation)
        if not done:
            return False
        for launches in by_rank.values():
            if launches and not launches[0]:
                launches.popleft()
    return True


def _meets(rank: int, operation: Operation, begun: dict[int, list[Operation]]) -> bool:
    """Whether the ranks that an operation needs have begun it too."""
    if operation.peer is None:
        return all(other in begun and begun[other][0].name == operation.name for other in operation.ranks)
    return any(
        (theirs.name, theirs.peer) == ("send" if operation.name == "recv_" else "recv_", rank)
        for theirs in begun.get(operation.peer, ())
    )
