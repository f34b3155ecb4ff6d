"""Ranks that are killed or hang, under torchrun: who it was is on record, and the run goes on by itself, bit by bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.programs import ROOT, SMALL, environment, losses
from tests.distributed.pool import Pool
from tests.distributed.stop_cases import command

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
QUIET = ("--eval-iters", "0", "--log-interval", "5", "--save-interval", "5", "--lr-decay-style", "constant")


def disturbed(
    data: Path, folder: Path, faults: str, *more: str, iters: int = 14, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """Train on two ranks under torchrun, with a fault in each attempt."""
    torchrun = (*TORCHRUN, "--max-restarts", str(restarts), "tests/cli/disturbed_run.py")
    words = ("--data-path", str(data), "--save", str(folder), "--load", str(folder), "--train-iters", str(iters))
    return subprocess.run(
        [*torchrun, *SMALL, *QUIET, *words, *more],
        cwd=ROOT, env=environment(FAULTS=faults), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def record(folder: Path, name: str = "exit.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def test_a_killed_and_a_sleeping_rank_are_named_and_the_run_goes_on(pool: Pool, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = disturbed(data, folder, "kill:1:7 sleep:0:9", "--hang-timeout-seconds", "2", restarts=2)
    assert done.returncode == 0, done.stderr
    killed, hung, last = (record(folder, name) for name in ("exit.0.json", "exit.1.json", "exit.json"))
    assert (killed["rank"], killed["attempt"]) == (1, 0) and "was killed, or crashed, without a word" in killed["cause"]
    assert (hung["rank"], hung["attempt"]) == (0, 1) and "disturbed_run.py" in hung["cause"]
    assert (last["status"], last["cause"], last["attempt"]) == (0, None, 2)
    assert done.stderr.count("warning: nothing moves: rank 0 ") == 1
    for rank in (0, 1):
        stacks = (folder / "stacks" / f"rank_{rank}.txt").read_text()
        assert ("disturbed_run.py" in stacks.split("Thread")[-1]) and "train_step" in stacks

    undisturbed = tmp_path / "undisturbed"
    words = [*SMALL, *QUIET, "--data-path", str(data), "--save", str(undisturbed), "--load", str(undisturbed)]
    assert pool.run(command, 2, words=[*words, "--train-iters", "14"]) == [0, 0]
    assert losses(folder) == losses(undisturbed)


@pytest.mark.full
def test_kills_at_random_moments_change_nothing(pool: Pool, data: Path, tmp_path: Path) -> None:
    """In starts, steps and saves alike, from outside."""
    folder, log, draw = tmp_path / "run", tmp_path / "log", random.Random(0)
    longer = (*SMALL, *QUIET, "--data-path", str(data), "--train-iters", "150")
    command_line = (*TORCHRUN, "--max-restarts", "3", "pretrain_contextlm.py", *longer)
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*command_line, "--save", str(folder), "--load", str(folder)],
            cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        before: set[int] = set()
        for _ in range(3):
            while len(ranks := {child.pid for child in psutil.Process(process.pid).children()} - before) < 2:
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            time.sleep(draw.uniform(1, 12))
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(sorted(ranks)), signal.SIGKILL)
            before |= ranks
        assert process.wait(timeout=300) == 0, log.read_text()
    undisturbed = tmp_path / "undisturbed"
    places = ("--save", str(undisturbed), "--load", str(undisturbed))
    assert pool.run(command, 2, words=[*longer, *places]) == [0, 0]
    assert losses(folder) == losses(undisturbed) and len(losses(folder)) == 150


@pytest.mark.full
@pytest.mark.parametrize("what", ["stop", "hold"])
def test_a_rank_that_cannot_speak_is_named_by_another(data: Path, tmp_path: Path, what: str) -> None:
    done = disturbed(data, tmp_path, f"{what}:1:7", "--hang-timeout-seconds", "2")
    assert done.returncode == 1 and record(tmp_path)["rank"] == 1
    assert "its process is stopped, or an extension holds its interpreter" in record(tmp_path)["cause"]
    stacks = (tmp_path / "stacks" / "rank_1.txt").read_text()
    assert ("disturbed_run.py" in stacks) == (what == "hold")  # a thread without Python has written it


@pytest.mark.full
def test_ranks_do_not_outlive_their_launcher(data: Path, tmp_path: Path) -> None:
    done = disturbed(data, tmp_path, "orphan:0:12", iters=100000)
    assert done.returncode == -9
    end = time.monotonic() + 60
    while left := [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)]:
        assert time.monotonic() < end, left
        time.sleep(0.2)
    assert "the launcher of rank" in record(tmp_path)["cause"]
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text().strip() == "10"


@pytest.mark.full
def test_a_slow_rank_that_moves_is_left_alone(data: Path, tmp_path: Path) -> None:
    done = disturbed(data, tmp_path, "slow:1:9", "--hang-timeout-seconds", "6")
    assert done.returncode == 0 and "nothing moves" not in done.stderr
    assert not (tmp_path / "stacks").exists()
