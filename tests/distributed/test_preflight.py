"""Ranks that do not hear each other are named right after they have met, by all that can still be told."""

from __future__ import annotations

from tests.distributed.pool import Pool
from tests.distributed.preflight_cases import hear, meet


def test_the_sums_of_all_groups_are_right(pool: Pool) -> None:
    assert pool.run(hear, 4, what="nothing") == [{"ranks": 4, "fault": None}] * 4


def test_a_wrong_sum_is_told_on_every_rank_with_its_group(pool: Pool) -> None:
    found = pool.run(hear, 4, what="wrong")
    whats = {rank["fault"][0] for rank in found}
    assert len(whats) == 1
    (what,) = whats
    assert "the sum over all ranks 0, 1, 2, 3 is wrong: 16 in place of 10 on rank 0" in what
    assert "tensor-parallel ranks 0, 1" in what and "data-parallel ranks 1, 3" in what
    assert "ranks 2, 3 is" not in what and "ranks 0, 2 is" not in what  # those of other groups
    assert all("GLOO_SOCKET_IFNAME" in rank["fault"][1] for rank in found)


def test_a_silent_rank_is_not_waited_for_as_long_as_in_training(pool: Pool) -> None:
    first, silent = pool.run(hear, 2, what="silent")
    assert first["fault"][0].startswith("rank 0: no sum over all ranks 0, 1 after ") and silent["fault"] is None


def test_the_doctor_has_the_ranks_meet_and_compares_their_clocks(pool: Pool) -> None:
    assert pool.run(meet, 2) == [[("meeting", "ok"), ("clocks", "ok")]] * 2
    assert pool.run(meet, 1) == [[]]
