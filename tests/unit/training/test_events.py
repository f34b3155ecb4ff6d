"""The history of a run, and the command that it keeps."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from contextlm.training import events, exit_status
from contextlm.training.started_with import started_with


def test_events_are_appended(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    events.append(str(folder), "begin", iteration=0)
    events.append(str(folder), "end", iteration=5)
    events.append(None, "end")
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [(line["what"], line["iteration"]) for line in lines] == [("begin", 0), ("end", 5)]
    assert lines[0]["time"][-1] == "Z"


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    events.append(str(tmp_path / "file"), "begin")
    assert "events.jsonl could not be written" in capsys.readouterr().err


def test_a_failure_is_kept_when_the_next_job_removes_its_exit_json(tmp_path: Path) -> None:
    for cause in ("the first", "not the first of this job"):
        exit_status.write_failure(str(tmp_path), RuntimeError(cause))
    os.utime(tmp_path / "exit.json", (0, 0))
    with exit_status.recorded(str(tmp_path)):
        pass
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line).items() >= {"what": "failure", "status": 1, "rank": 0, "cause": "the first"}.items()
    assert json.loads((tmp_path / "exit.json").read_text())["status"] == 0


def test_the_command_is_that_of_the_launcher_and_holds_no_secrets() -> None:
    words = ["pretrain_contextlm.py", "--seed", "1"]
    secret = {"WANDB_API_KEY": "secret", "NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4"}
    alone = started_with(words, secret)
    assert alone == {
        "directory": os.getcwd(),
        "command": [sys.executable, *words],
        "environment": {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4"},
    }
    assert started_with(words, {"WORLD_SIZE": "4"})["command"] == [sys.executable, *words]  # another launcher's
    torchrun = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}
    one = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", *words]
    assert started_with(words, torchrun)["command"] == one
    several = started_with(words, torchrun | {"WORLD_SIZE": "8"})["command"]
    assert several[3:9] == ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500"]
    single = started_with(words, {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"})["command"]
    assert single[1:] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", *words]
