"""Two jobs on one folder: the second is refused, and the first does not notice."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.programs import ROOT, SMALL, environment, losses, run


def words(data: Path, folder: Path, *more: str) -> tuple[str, ...]:
    places = ("--data-path", str(data), "--save", str(folder), "--load", str(folder))
    return ("pretrain_contextlm.py", *SMALL, *places, "--log-interval", "5", "--eval-iters", "0", *more)


def test_the_second_job_is_refused_and_the_first_goes_on(data: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    length = ("--train-iters", "100000", "--lr-decay-style", "constant")
    with open(log, "w") as file:
        first = subprocess.Popen(
            [sys.executable, *words(data, folder, *length)],
            cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while not re.search(r"iteration +10/", log.read_text()):
            assert first.poll() is None, log.read_text()
            time.sleep(0.05)
    second = run(*words(data, folder, *length))
    assert second.returncode == 1 and "Traceback" not in second.stderr
    assert f"--save {folder}: another job saves there: process {first.pid} on " in second.stderr
    mistaken = run(*words(data, folder, "--train-itres", "3"))  # it writes no exit.json over that of the first
    assert mistaken.returncode == 1 and not (folder / "exit.json").exists()
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 75, log.read_text()
    assert json.loads((folder / "exit.json").read_text())["status"] == 75
    count = len(losses(folder))  # one line for each iteration
    assert (folder / "latest_checkpointed_iteration.txt").read_text().strip() == str(count)
    assert not (folder / "run.lock").exists()
