"""What happened, and what to try: two lines, the first of them in exit.json."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
import torch

from contextlm.data.indexed import DataLost
from contextlm.errors import UserError
from contextlm.training import exit_status, faults

GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:1234. This is "
    "often indicative of a remote peer failing."
)
NCCL = "NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network error"


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "ran out of GPU memory", "--micro"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            "host",
            "--mi",
        ),
        (MemoryError(), "ran out of host memory: MemoryError", "--micro-batch-size"),
        (DataLost("x.bin has become shorter than the 9 bytes it had"), "lost its data: x.bin", "put the files back"),
        (RuntimeError(GLOO), "lost contact with another rank: [/pytorch", "last checkpoint"),
        (torch.distributed.DistBackendError(NCCL), "lost contact with another rank: NCCL", "last checkpoint"),
        (RuntimeError(GLOO[:60] + " Timed out waiting 1000ms for recv"), "waited in vain", "--distributed-timeout-min"),
        (torch.distributed.DistStoreError("Socket Timeout"), "waited in vain", "--distributed-timeout-minutes"),
    ],
)
def test_two_lines(error, what, remedy, tmp_path: Path, capsys) -> None:
    with pytest.raises(faults.Fault) as caught, faults.in_words(), exit_status.recorded(str(tmp_path)):
        raise error
    assert caught.value.__cause__ is error
    assert what in caught.value.what and remedy in caught.value.remedy
    record = json.loads((tmp_path / "exit.json").read_text())
    assert (record["cause"], record["remedy"]) == (caught.value.what, caught.value.remedy)
    faults.tell(caught.value)
    *trace, first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {caught.value.what}" and second == f"       {caught.value.remedy}"
    assert trace[0].startswith("Traceback") and any("raise error" in line for line in trace)


@pytest.mark.parametrize(
    "error",
    [UserError("--lr x"), RuntimeError("shape mismatch"), KeyboardInterrupt(), SystemExit(3), ValueError("gloo")],
)
def test_others_stay_what_they_are(error) -> None:
    with pytest.raises(type(error)) as caught, faults.in_words():
        raise error
    assert caught.value is error


def test_the_first_failure_stays_the_cause(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exit_status.recorded(str(tmp_path)), exit_status.failures_noted(str(tmp_path)):
        try:
            raise RuntimeError("first")
        except RuntimeError as error:
            exit_status.write_failure(str(tmp_path), error)
            raise RuntimeError("second") from error
    assert json.loads((tmp_path / "exit.json").read_text())["cause"] == "first"


def test_a_preemption_is_status_75_and_is_not_overwritten(tmp_path: Path) -> None:
    with exit_status.recorded(str(tmp_path)):
        exit_status.write_preemption(str(tmp_path), "SIGTERM")
    record = json.loads((tmp_path / "exit.json").read_text())
    assert (record["status"], record["cause"]) == (75, "SIGTERM: saved, to be continued")


def test_the_program_tells_them_last_and_ends_with_1(monkeypatch, capsys) -> None:
    import pretrain_contextlm
    from contextlm.config.resolve import Invocation
    from contextlm.config.schema import Config
    from contextlm.preflight import host_checks

    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(pretrain_contextlm, "parse", lambda words: Invocation(Config(), False, False, 1, ()))
    monkeypatch.setattr(host_checks, "build_tokenizer", no_memory)
    with pytest.raises(SystemExit) as caught:
        pretrain_contextlm.main()
    assert caught.value.code == 1
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith("error: rank 0 ran out of GPU memory in opening the tokenizer: CUDA out of memory. Tried")
    assert "start fewer per host" in second


def test_what_earlier_attempts_recorded_is_kept_and_what_earlier_jobs_did_is_not(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(exit_status, "_started", lambda: 1000.0)
    for name in ("exit.json", "exit.0.json"):
        (tmp_path / name).write_text('{"attempt": 5}')
        os.utime(tmp_path / name, (900, 900))
    for attempt in range(3):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        with pytest.raises(RuntimeError), exit_status.recorded(str(tmp_path)):
            raise RuntimeError(f"cause {attempt}")
    causes = {path.name: json.loads(path.read_text())["cause"] for path in tmp_path.glob("exit*.json")}
    assert causes == {"exit.0.json": "cause 0", "exit.1.json": "cause 1", "exit.json": "cause 2"}


def test_the_record_is_told_to_launchers(tmp_path: Path, capsys) -> None:
    assert exit_status.main([str(tmp_path)]) == 1 and "not on record" in capsys.readouterr().err
    exit_status.write_cause(str(tmp_path), 3, "no memory", "try less")
    assert exit_status.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == "rank 3: no memory\n      try less\n"
    (tmp_path / "exit.json").write_text('{"status": 75, "rank": 0, "cause": "SIGTERM: saved, to be continued"}')
    assert exit_status.main([str(tmp_path)]) == 75
    (tmp_path / "exit.json").write_text('{"status": 0, "rank": 0, "cause": null}')
    assert exit_status.main([str(tmp_path)]) == 0


def test_a_record_that_cannot_be_written_whole_is_not_there(tmp_path: Path, capsys) -> None:
    """Nor is one whose writer is killed: an empty one would keep others from telling the cause."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # what a full disk does to a file
    try:
        exit_status.write_cause(str(tmp_path), 3, "no memory", "try less")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [] and "could not be written" in capsys.readouterr().err
    exit_status.write_cause(str(tmp_path), 2, "no disk", "")
    assert json.loads((tmp_path / "exit.json").read_text())["cause"] == "no disk"
    assert {path.name for path in tmp_path.iterdir()} == {"exit.json", "events.jsonl"}


def test_what_an_orphan_of_another_start_wrote_does_not_stay(tmp_path: Path, monkeypatch) -> None:
    """A killed torchrun's ranks notice it a second later, when the next start may have begun."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setattr(exit_status, "_started", lambda: 0.0)
    with exit_status.recorded(str(tmp_path)):
        with monkeypatch.context() as orphan:
            orphan.setattr(os, "getppid", lambda: 1)
            exit_status.write_cause(str(tmp_path), 1, "the launcher is gone", "run it again")
    assert json.loads((tmp_path / "exit.json").read_text())["status"] == 0
    other = tmp_path / "other"
    with pytest.raises(RuntimeError), exit_status.recorded(str(other)):
        exit_status.write_cause(str(other), 1, "first", "")
        raise RuntimeError("second")  # of this start: the first failure stays
    assert json.loads((other / "exit.json").read_text())["cause"] == "first"
