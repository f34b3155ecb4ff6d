"""The soak's trials, a few of them: what they are is in `kinds.py`, hundreds of them are `make soak`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.programs import run


def soak(folder: Path, *trials: str) -> dict[str, dict[str, Any]]:
    """What came of each trial, by what stands for it on the command line."""
    done = run(
        *("-m", "tests.faults.soak", "--folder", str(folder), "--out", str(folder / "out"), "--jobs", "1"),
        *("--these", *trials),
    )
    assert (folder / "out" / "trials.jsonl").exists(), done.stdout + done.stderr
    lines = map(json.loads, (folder / "out" / "trials.jsonl").read_text().splitlines())
    return {":".join(filter(None, (line["kind"], str(line["seed"]), line["control"]))): line for line in lines}
