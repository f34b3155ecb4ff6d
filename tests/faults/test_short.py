"""The soak's trials, a dozen of them: what they are is in `kinds.py`, the whole of them is `make soak`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import run

TRIALS = (
    "kill-one-rank:0", "kill-all:1", "sigterm:1", "save-crash:3", "save-crash:14", "save-refused:0", "read-only:0",
    "damaged-shard:0", "damaged-tracker:0", "damaged-data:0", "nan-gradient:2", "sleeping-rank:0",
)  # fmt: skip
CONTROLS = ("control:0", "control:0:forgotten_generators", "control:0:kept_lines")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each trial, by its words."""
    folder: Path = tmp_path_factory.mktemp("faults")
    place = ("--folder", str(folder), "--lines", str(folder / "lines"), "--jobs", "1")
    done = run("-m", "tests.faults.soak", "--these", *TRIALS, *CONTROLS, *place)
    assert (folder / "lines").exists(), done.stdout + done.stderr
    lines = map(json.loads, (folder / "lines").read_text().splitlines())
    return {":".join(filter(None, (line["kind"], str(line["seed"]), line["control"]))): line for line in lines}


@pytest.mark.parametrize("trial", TRIALS)
def test_a_run_comes_through(results: dict[str, dict[str, Any]], trial: str) -> None:
    assert results[trial]["problem"] is None, results[trial]
    assert results[trial]["equal"] and results[trial]["hit"] != "never"


def test_the_verdict_notices_what_is_broken(results: dict[str, dict[str, Any]]) -> None:
    """The same fault, on a product that is sound, that forgets its random numbers, and that tells iterations twice."""
    from tests.faults.table import is_good

    sound, *broken = (results[name] for name in CONTROLS)
    assert sound["problem"] is None and sound["equal"]
    assert [(is_good(result), result["equal"]) for result in broken] == [(True, False)] * 2, broken
