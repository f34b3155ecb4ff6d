"""Runs that are killed, stopped, or hang (`make soak` does many more)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.short import soak

TRIALS = ("kill-one-rank:0", "kill-launcher:0", "save-crash:3", "hanging-rank:0")
UNDER_TORCHRUN = ("torchrun-restart:0", "torchrun-sigterm:0", "torchrun-killed:0")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of all trials here, conducted by one program."""
    return soak(tmp_path_factory.mktemp("faults"), *TRIALS)


@pytest.mark.parametrize("trial", TRIALS)
def test_a_run_comes_through(results: dict[str, dict[str, Any]], trial: str) -> None:
    assert results[trial]["problem"] is None, results[trial]["problem"]
    assert results[trial]["equal"] and results[trial]["hit"] != "never"


@pytest.mark.full
def test_torchrun_itself(tmp_path: Path) -> None:
    results = soak(tmp_path, *UNDER_TORCHRUN)
    assert {name: result["problem"] for name, result in results.items()} == dict.fromkeys(UNDER_TORCHRUN)
