"""Runs whose files or numbers are damaged (`make soak` does many more), and what the verdict must notice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.short import soak
from tests.faults.table import is_good

TRIALS = ("save-refused:0", "damaged-shard:0", "damaged-checkpoint:1", "nan-skipped:0", "nan-rolled-back:2")
CONTROLS = ("control:0", "control:0:forgotten_generators")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of all trials here, conducted by one program."""
    return soak(tmp_path_factory.mktemp("faults"), *TRIALS, *CONTROLS)


@pytest.mark.parametrize("trial", TRIALS)
def test_a_run_comes_through(results: dict[str, dict[str, Any]], trial: str) -> None:
    assert results[trial]["problem"] is None, results[trial]["problem"]
    assert results[trial]["equal"] and results[trial]["hit"] != "never"


def test_the_verdict_notices_what_is_broken(results: dict[str, dict[str, Any]]) -> None:
    """The same fault, on a product that is sound, and on one that forgets its random numbers."""
    sound, *broken = (results[name] for name in CONTROLS)
    assert sound["problem"] is None and sound["equal"]
    assert [(is_good(result), result["equal"]) for result in broken] == [(True, False)], broken
