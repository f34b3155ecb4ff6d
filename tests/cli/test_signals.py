"""SIGTERM to torchrun: its ranks finish the iteration, save, exit with 75, and the run continues bit for bit.

Ctrl-C does the same (tests/distributed/test_stops.py); where there is nothing to save it ends in a sentence.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.programs import ROOT, SMALL, environment, events, losses
from tests.distributed.pool import Pool
from tests.distributed.stop_cases import command


def test_sigterm_saves_and_the_run_continues_bit_for_bit(pool: Pool, data: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    quiet = ("--eval-iters", "0", "--log-interval", "5", "--lr-decay-style", "constant", "--data-path", str(data))
    words = ("--train-iters", "100000", "--save", str(folder), "--load", str(folder))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*torchrun, "pretrain_contextlm.py", *SMALL, *quiet, *words],
            cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while not re.search(r"iteration +10/", log.read_text()):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    record = json.loads((folder / "exit.json").read_text())
    assert record.pop("job")["run"] and record == {
        "status": 75,
        "rank": 0,
        "cause": "SIGTERM: saved, to be continued",
        "attempt": 0,
    }
    stopped = losses(folder)
    begun, ended = events(folder)
    assert ended.items() >= {"what": "preemption", **record}.items() and begun["layout"] == "TP 1 x PP 1 x DP 2"
    assert "--nproc-per-node 2 pretrain_contextlm.py --model" in " ".join(begun["started_with"]["command"])
    assert (folder / "latest_checkpointed_iteration.txt").read_text().strip() == str(len(stopped))
    assert (folder / f"iter_{len(stopped):07d}" / "run.json").exists()

    length = ("--train-iters", str(len(stopped) + 3))
    for place in (folder, tmp_path / "undisturbed"):
        places = ("--save", str(place), "--load", str(place))
        assert pool.run(command, 2, words=[*SMALL, *quiet, *length, *places]) == [0, 0]
    assert losses(folder) == losses(tmp_path / "undisturbed") and losses(folder)[:-3] == stopped


def test_ctrl_c_without_a_folder_for_checkpoints_is_no_traceback(data: Path, tmp_path: Path) -> None:
    words = ("--data-path", str(data), "--eval-iters", "0", "--log-interval", "1", "--train-iters", "100000")
    log, folder = tmp_path / "log", tmp_path / "out"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "pretrain_contextlm.py", *SMALL, *words, "--output-dir", str(folder)],
            cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT,
            # Where the tests run in the background Ctrl-C is ignored, and what is ignored is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        while not re.search(r"iteration +2/", log.read_text()):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    said = log.read_text()
    assert "Traceback" not in said and said.splitlines()[-1].startswith("interrupted, and not saved")
    assert json.loads((folder / "exit.json").read_text())["cause"] == "Ctrl-C: left without saving"
