"""One job at a time saves in a folder: who holds its lock, who may take it over, and what happens to the loser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from contextlm import lock_files
from contextlm.checkpoints import save_lock
from tests.cli.programs import ROOT, environment

HOLDS = """
import sys, time
from contextlm.checkpoints import save_lock
print("ready", flush=True)
sys.stdin.readline()
with save_lock.held(sys.argv[1]) as refusals:
    print(f"refused: {refusals[0]}" if refusals else "held", flush=True)
    if not refusals:
        sys.stdin.readline()
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """A process that takes the lock when it is told to, and leaves it when it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip


def tell(process: subprocess.Popen[str]) -> str:
    """Let it go on; what it says next."""
    process.stdin.write("go\n")
    return process.stdout.readline()


def killed_owner(folder: Path) -> subprocess.Popen[str]:
    """A process that was killed while it held the lock; its number is not free before somebody waits for it."""
    process = start(folder)
    process.stdout.readline()
    assert tell(process) == "held\n"
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    return process


def write_lock(folder: Path, **about: Any) -> Path:
    """A lock of another machine."""
    owner = json.loads(save_lock._this_job()) | {"host": "elsewhere", "boot": "other", "since": "yesterday"} | about
    lock = folder / save_lock.LOCK_FILE
    lock.write_text(json.dumps(owner) + "\n")
    return lock


def silence(lock: Path, seconds: float) -> None:
    """The last touch was so long ago."""
    os.utime(lock, (time.time() - seconds, time.time() - seconds))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_lock, "POLL_SECONDS", 0.01)


def test_a_live_owner_is_named_and_keeps_its_lock(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.stdout.readline()
    assert tell(first) == "held\n"
    with save_lock.held(str(tmp_path)) as refusals:
        assert f"process {first.pid} on " in refusals[0] and "another job saves there" in refusals[0]
    assert json.loads((tmp_path / save_lock.LOCK_FILE).read_text())["pid"] == first.pid
    assert save_lock.is_of_another_job(str(tmp_path))
    first.communicate("go\n")
    assert list(tmp_path.iterdir()) == []  # released
    with save_lock.held(str(tmp_path)):
        assert not save_lock.is_of_another_job(str(tmp_path))


def test_other_ranks_and_runs_that_save_nothing_need_none(tmp_path: Path, monkeypatch) -> None:
    with save_lock.held(None):
        pass
    monkeypatch.setenv("RANK", "1")
    with save_lock.held(str(tmp_path)):
        assert list(tmp_path.iterdir()) == []


def test_eight_at_once_take_over_from_a_dead_owner_and_one_succeeds(tmp_path: Path) -> None:
    dead = killed_owner(tmp_path)  # not waited for: a zombie is dead, too
    processes = [start(tmp_path) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
    said = [process.stdout.readline() for process in processes]
    (winner,) = (process for process, line in zip(processes, said, strict=True) if "taken over" in line)
    assert "it is dead" in said[processes.index(winner)] and winner.stdout.readline() == "held\n"
    assert sum(line.startswith("refused: ") and f"process {winner.pid} on" in line for line in said) == 7
    assert [path.name for path in tmp_path.iterdir()] == [save_lock.LOCK_FILE]
    for process in (dead, *processes):
        process.communicate("go\n" if process is winner else None)


def test_the_number_of_a_dead_owner_may_be_another_process_by_now(tmp_path: Path, capsys) -> None:
    owner = json.loads(save_lock._this_job())
    (tmp_path / save_lock.LOCK_FILE).write_text(json.dumps(owner | {"started": owner["started"] - 1000}))
    with save_lock.held(str(tmp_path)):
        assert "it is dead" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "{", '{"pid": "x"}', "[1]"])
def test_out_of_sight_or_damaged_it_is_taken_over_after_a_silent_minute(
    tmp_path: Path, capsys, content: str | None
) -> None:
    lock = write_lock(tmp_path)
    if content is not None:
        lock.write_text(content)
    silence(lock, lock_files.SILENT_SECONDS + 5)
    with save_lock.held(str(tmp_path)):
        assert "silent for 65 s" in capsys.readouterr().out
        assert lock_files.is_ours(lock.read_text())


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_clocks_of_hosts_are_not_compared(tmp_path: Path, monkeypatch, ahead: float) -> None:
    lock, now = write_lock(tmp_path), time.time()
    silence(lock, 30)
    monkeypatch.setattr(time, "time", lambda: now + ahead)
    assert 29 < lock_files.silent_for(lock) < 35 and save_lock._reason_to_take_over(lock, lock.read_text()) is None


def test_out_of_sight_a_touch_is_waited_for_and_then_refused(tmp_path: Path, capsys) -> None:
    lock = write_lock(tmp_path)
    silence(lock, 20)
    touch = threading.Timer(1.5, lambda: os.utime(lock))
    touch.start()
    with save_lock.held(str(tmp_path)) as refusals:
        assert "elsewhere, started yesterday" in refusals[0]
    assert lock.exists()
    assert capsys.readouterr().err.count("waiting for a sign of life") == 1


def test_a_later_attempt_of_a_slurm_job_waits_for_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    write_lock(tmp_path, slurm_job="7", attempt=[0, 2])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with save_lock.held(str(tmp_path)):
        assert "started again" in capsys.readouterr().out
    lock = write_lock(tmp_path, slurm_job="8", attempt=[0, 0])
    assert save_lock._reason_to_take_over(lock, lock.read_text()) is None


class LoneHost:
    """An agreement of a single rank."""

    def largest(self, *numbers: float) -> list[float]:
        return [float(number) for number in numbers]


def test_a_lock_that_was_taken_over_stops_the_run_before_it_writes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock_files, "HEARTBEAT_SECONDS", 0.01)
    hosts: Any = LoneHost()
    with save_lock.held(str(tmp_path)):
        save_lock.require(str(tmp_path), 0, hosts)
        lock = write_lock(tmp_path)
        taken = lock.read_text()
        with pytest.raises(save_lock.SaveLockLost, match="elsewhere, started yesterday has taken over"):
            save_lock.require(str(tmp_path), 0, hosts)
        assert save_lock.is_of_another_job(str(tmp_path))
        time.sleep(0.05)
    assert lock.read_text() == taken  # neither touched away nor removed


def test_a_lock_that_was_removed_by_hand_comes_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock_files, "HEARTBEAT_SECONDS", 0.01)
    lock = tmp_path / save_lock.LOCK_FILE
    with save_lock.held(str(tmp_path)):
        lock.unlink()
        while not lock.exists():
            time.sleep(0.01)
    assert not lock.exists()


def test_a_claim_that_a_dead_process_left_keeps_nobody_out(tmp_path: Path) -> None:
    dead = killed_owner(tmp_path)
    known = (tmp_path / save_lock.LOCK_FILE).read_text()
    with pytest.raises(KeyError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock_files, "read", lambda _: dict[str, str]()["died here"])
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        lock_files.replace(tmp_path / save_lock.LOCK_FILE, known, known)
    assert len(list(tmp_path.glob("*.claim"))) == 1
    with save_lock.held(str(tmp_path)):
        pass
    assert list(tmp_path.glob("*.claim")) == [] and not (tmp_path / save_lock.LOCK_FILE).exists()
    dead.communicate()


def test_a_folder_that_takes_no_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with save_lock.held(str(tmp_path / "file" / "run")) as refusals:
        assert "file/run: run.lock cannot be made there: Not a directory" in refusals[0]


def test_without_hard_links_the_lock_is_made_exclusively(tmp_path: Path, monkeypatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    with save_lock.held(str(tmp_path)):
        assert lock_files.is_ours((tmp_path / save_lock.LOCK_FILE).read_text())
        assert not lock_files.create(tmp_path / save_lock.LOCK_FILE, "another")
