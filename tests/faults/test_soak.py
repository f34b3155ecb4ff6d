"""The soak itself: however it ends, it leaves what it has found, and no process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.programs import ROOT, environment


@pytest.mark.full
@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGKILL))
def test_a_soak_that_is_ended_leaves_its_lines_and_no_process(tmp_path: Path, number: signal.Signals) -> None:
    place = ("--folder", str(tmp_path), "--out", str(tmp_path / "out"), "--jobs", "1")
    soak = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.soak", *place, "--these", "damaged-tracker:1", "hanging-rank:0"],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not list(tmp_path.glob("*/hanging-rank-0/struck")):  # it hangs, and holds Python's lock
            assert soak.poll() is None
            time.sleep(0.02)
        assert len(processes(tmp_path)) > 3
    finally:
        soak.send_signal(number)
    soak.wait()
    end = time.monotonic() + 20
    while processes(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes(tmp_path) == []
    (line,) = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    assert json.loads(line)["equal"] and (tmp_path / "out" / "table.md").exists()


def processes(folder: Path) -> list[int]:
    """Those that the soak has forked: they go by its command."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(folder) in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found
