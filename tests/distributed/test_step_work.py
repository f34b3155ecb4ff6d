"""An iteration of ours walks no tree of modules and makes no configuration: the device would wait for the host."""

from __future__ import annotations

import pytest

from tests.distributed import step_work_cases as cases
from tests.distributed.pool import Pool

ITERATIONS = 3
# megatron-core's finalize_model_grads walks once, for what layers with experts leave behind.
MEGATRONS = {"Module.modules": ITERATIONS}


@pytest.mark.parametrize("backbone", [{}, {"context_chunk_size": 0}], ids=["contextlm", "plain"])
def test_an_iteration_walks_no_modules_of_its_own_and_makes_no_configuration(pool: Pool, backbone: dict) -> None:
    assert pool.run(cases.work_of_steps, 1, values=backbone) == [MEGATRONS]


def test_a_planted_walk_is_counted(pool: Pool) -> None:
    (found,) = pool.run(cases.work_of_steps, 1, values={}, planted="train")
    assert found["Module.train"] > ITERATIONS and found["Module.modules"] == ITERATIONS


def test_an_evaluation_leaves_the_mode_as_it_was(pool: Pool) -> None:
    assert pool.run(cases.modes_around_an_evaluation, 1) == [[(True, True), (False, False)]]
