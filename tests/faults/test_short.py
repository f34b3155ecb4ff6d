"""The soak's trials, a dozen or so of them: what they are is in `kinds.py`, hundreds of them are `make soak`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import run
from tests.faults.table import is_good

TRIALS = (
    "kill-one-rank:0", "kill-all:1", "kill-launcher:0", "sigterm:1", "save-crash:3", "save-refused:0", "read-only:0",
    "damaged-shard:0", "damaged-checkpoint:1", "damaged-tracker:1", "damaged-data:0", "nan-skipped:0",
    "nan-rolled-back:2", "hanging-rank:0", "two-jobs:0",
)  # fmt: skip
UNDER_TORCHRUN = ("torchrun-restart:0", "torchrun-sigterm:0", "torchrun-killed:0")
CONTROLS = ("control:0", "control:0:forgotten_generators", "control:0:kept_lines")


def soak(folder: Path, *trials: str) -> dict[str, dict[str, Any]]:
    """What came of each trial."""
    place = ("--folder", str(folder), "--lines", str(folder / "lines"), "--jobs", "1")
    done = run("-m", "tests.faults.soak", "--these", *trials, *place)
    assert (folder / "lines").exists(), done.stdout + done.stderr
    lines = map(json.loads, (folder / "lines").read_text().splitlines())
    return {":".join(filter(None, (line["kind"], str(line["seed"]), line["control"]))): line for line in lines}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of all trials here, conducted by one program."""
    return soak(tmp_path_factory.mktemp("faults"), *TRIALS, *CONTROLS)


@pytest.mark.parametrize("trial", TRIALS)
def test_a_run_comes_through(results: dict[str, dict[str, Any]], trial: str) -> None:
    assert results[trial]["problem"] is None, results[trial]["problem"]
    assert results[trial]["equal"] and results[trial]["hit"] != "never"


def test_the_verdict_notices_what_is_broken(results: dict[str, dict[str, Any]]) -> None:
    """The same fault, on a product that is sound, that forgets its random numbers, and that tells iterations twice."""
    sound, *broken = (results[name] for name in CONTROLS)
    assert sound["problem"] is None and sound["equal"]
    assert [(is_good(result), result["equal"]) for result in broken] == [(True, False)] * 2, broken


@pytest.mark.full
def test_torchrun_itself(tmp_path: Path) -> None:
    results = soak(tmp_path, *UNDER_TORCHRUN)
    assert {name: result["problem"] for name, result in results.items()} == dict.fromkeys(UNDER_TORCHRUN)
