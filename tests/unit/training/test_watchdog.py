"""The watchdog, look by look, on a clock of its own: who is blamed, who is left alone, when a run ends."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from torch.distributed import HashStore

from contextlm.config.fields import build
from contextlm.parallel.companions import Companions, Failure
from contextlm.training import watchdog
from contextlm.training.faults import Fault
from contextlm.training.stacks import StacksFile
from contextlm.training.watchdog import Watchdog
from contextlm.training.whereabouts import Whereabouts

LIMIT = 100.0
GLOO = "gloo: Connection closed by peer [127.0.0.1]:1234"


class Ended(BaseException):
    """In place of the end of the process."""


class Rank:
    """One rank's watchdog without its thread: a test looks, and moves it."""

    def __init__(self, rank: int, world_size: int, store: HashStore, folder: Path, **values: Any) -> None:
        self.where = Whereabouts()
        self.companions = Companions(rank, world_size, store)
        config = build({"hang_timeout_seconds": LIMIT} | values, None)
        self.watchdog = Watchdog(config, self.companions, self.where, str(folder))
        self.goes_on(1)
        self.goes_on(2)

    def goes_on(self, iteration: int, phase: str = "forward and backward") -> None:
        self.where.at(phase, iteration)
        self.look()

    def look(self, seconds: float = 1.0, waits: bool = False) -> None:
        with (
            mock.patch.object(watchdog, "is_in_a_collective", lambda: waits),
            mock.patch.object(watchdog.os, "_exit", mock.Mock(side_effect=Ended)),
        ):
            self.watchdog.look(seconds)


@pytest.fixture
def ranks(tmp_path: Path):
    store = HashStore()
    return [Rank(rank, 3, store, tmp_path) for rank in range(3)]


def wait(ranks: list[Rank], looks: int, hangs: int | None = None, each: float = 1.0) -> None:
    """Nobody moves for so many looks; all but one wait in a collective."""
    for _ in range(looks):
        for number, rank in enumerate(ranks):
            rank.look(each, waits=number != hangs)


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "exit.json").read_text())


def test_one_rank_reports_who_hangs_and_the_run_ends_half_as_long_again_later(ranks, tmp_path: Path, capfd) -> None:
    wait(ranks, 100, hangs=2)
    assert "nothing moves" not in capfd.readouterr().err
    wait(ranks, 48, hangs=2)
    said = capfd.readouterr().err
    assert said.count("nothing moves") == 1
    assert f"warning: nothing moves: rank 2 (pid {os.getpid()} on " in said
    assert "in forward and backward, iteration 2\n" in said and "rank 0: " in said and "ends with status 1 in 4" in said
    with pytest.raises(Ended):
        wait(ranks, 4, hangs=2)
    assert (record(tmp_path)["status"], record(tmp_path)["rank"]) == (1, 2)
    assert "hung for 150 s in forward and backward, iteration 2, at " in record(tmp_path)["cause"]
    for rank in ranks[1:]:  # which need not wait any longer
        with pytest.raises(Ended):
            rank.look()


def test_among_ranks_that_all_wait_the_one_that_is_behind_is_named(ranks, capfd) -> None:
    for rank in (ranks[0], ranks[2]):
        rank.goes_on(3)
    wait(ranks, 110)
    assert "nothing moves: rank 1 " in capfd.readouterr().err


def test_a_slow_run_that_moves_is_left_alone(ranks, capfd) -> None:
    """At first just below the limit, then up to three times what it has taken before."""
    for iteration, seconds in enumerate((99, 99, 280, 280), start=3):
        for rank in ranks:
            rank.goes_on(iteration)
        wait(ranks, seconds, hangs=1)
    assert "nothing moves" not in capfd.readouterr().err


def test_nobody_is_blamed_while_one_rank_moves(ranks, capfd) -> None:
    for iteration in range(3, 12):
        ranks[0].goes_on(iteration)
        wait(ranks, 50, hangs=1)
    assert "nothing moves" not in capfd.readouterr().err


def test_a_job_that_was_suspended_is_not_stuck(ranks, capfd) -> None:
    for rank in ranks:
        rank.look(3600.0)
    assert "nothing moves" not in capfd.readouterr().err


def test_what_may_take_long_is_told_of_late_and_never_ends_a_run(ranks, capfd) -> None:
    for rank in ranks:
        rank.goes_on(3, "saving")
    wait(ranks, 269, each=2.0)  # nine tenths of the ten minutes of the process group
    assert "nothing moves" not in capfd.readouterr().err
    wait(ranks, 300, each=2.0)
    assert capfd.readouterr().err.count("nothing moves") == 1


def test_the_first_iteration_may_take_long(tmp_path: Path, capfd) -> None:
    rank = Rank(0, 1, HashStore(), tmp_path)
    rank.where = Whereabouts()
    rank.watchdog = Watchdog(build({"hang_timeout_seconds": LIMIT}, None), rank.companions, rank.where, None)
    rank.goes_on(8)
    wait([rank], 500)
    assert "nothing moves" not in capfd.readouterr().err
    rank.goes_on(9)
    wait([rank], 120)
    assert capfd.readouterr().err.count("nothing moves") == 1


def test_the_first_iteration_is_known_though_nobody_looked(tmp_path: Path, capfd) -> None:
    rank = Rank(0, 1, HashStore(), tmp_path)
    rank.where = Whereabouts()
    rank.watchdog = Watchdog(build({"hang_timeout_seconds": LIMIT}, None), rank.companions, rank.where, None)
    for iteration in range(1, 9):  # all between two looks
        rank.where.at("forward and backward", iteration)
    rank.look()
    wait([rank], 120)
    assert capfd.readouterr().err.count("nothing moves") == 1


def test_a_rank_that_moves_again_says_so(ranks, capfd) -> None:
    wait(ranks, 110, hangs=0)
    for rank in ranks:
        rank.goes_on(3)
    assert "rank 0 moves again, after 110 s: forward and backward, iteration 3" in capfd.readouterr().err
    wait(ranks, 300, hangs=0)  # less than three times what it took
    assert "nothing moves" not in capfd.readouterr().err


@pytest.mark.parametrize("silent", [0, 2])
def test_a_rank_that_is_silent_is_named_by_the_others(ranks, silent: int, tmp_path: Path, capfd) -> None:
    others = [rank for number, rank in enumerate(ranks) if number != silent]
    now = [1000.0]
    with mock.patch("time.time", lambda: now[0]), pytest.raises(Ended):
        ranks[silent].look()
        for _ in range(160):
            now[0] += 1
            wait(others, 1)
    said = capfd.readouterr().err
    assert f"nothing moves: rank {silent} (pid " in said
    assert f"rank {silent}: silent for 1" in said
    assert "silent for 151 s" in record(tmp_path)["cause"] and record(tmp_path)["rank"] == silent


def test_a_switched_off_watchdog_says_nothing(tmp_path: Path, capfd) -> None:
    rank = Rank(0, 1, HashStore(), tmp_path, hang_timeout_seconds=0.0)
    wait([rank], 1000, each=2.0)
    assert capfd.readouterr().err == ""


def test_a_rank_follows_one_that_failed_after_a_moment(ranks, tmp_path: Path) -> None:
    ranks[1].companions.report(Failure(1, "rank 1 ran out of GPU memory", "try less"))
    assert ranks[0].companions.report(Failure(0, "lost contact")).rank == 1  # the first one stays
    wait(ranks[:1], int(watchdog.SECONDS_TO_FOLLOW))
    with pytest.raises(Ended):
        wait(ranks[:1], 1)
    assert record(tmp_path)["cause"] == "rank 1 ran out of GPU memory" and record(tmp_path)["remedy"] == "try less"


def test_a_victim_says_whose_failure_ended_it(ranks, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), ranks[2].watchdog:
        raise RuntimeError("shape mismatch")
    with pytest.raises(Fault) as caught, ranks[0].watchdog:
        raise RuntimeError(GLOO)
    assert caught.value.what == "rank 0 ends, because rank 2 failed: shape mismatch"
    assert record(tmp_path)["rank"] == 2


def test_a_victim_knows_a_killed_neighbour(ranks, tmp_path: Path) -> None:
    with (
        mock.patch.object(Companions, "dead_neighbour", lambda self: self.note(1)),
        pytest.raises(Fault) as caught,
        ranks[0].watchdog,
    ):
        raise RuntimeError(GLOO)
    assert "was killed, or crashed, without a word" in caught.value.what
    assert record(tmp_path)["rank"] == 1 and str(os.getpid()) in record(tmp_path)["cause"]


def test_a_survivor_puts_the_cause_on_record_before_torchrun_ends_it(ranks, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with mock.patch.object(signal, "raise_signal", mock.Mock(side_effect=SystemExit)) as died:
        with pytest.raises(SystemExit), ranks[0].watchdog:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody has failed: it ends, as ever
        assert not (tmp_path / "exit.json").exists()
        ranks[2].companions.report(Failure(2, "killed"))
        with pytest.raises(SystemExit), ranks[1].watchdog:
            os.kill(os.getpid(), signal.SIGTERM)
    assert died.call_args_list == [mock.call(signal.SIGTERM)] * 2
    assert record(tmp_path)["cause"] == "killed" and signal.getsignal(signal.SIGTERM) == before


def test_a_rank_whose_launcher_is_gone_leaves(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    rank = Rank(0, 1, HashStore(), tmp_path)
    rank.look()
    with mock.patch.object(watchdog.os, "getppid", lambda: 1), pytest.raises(Ended):
        rank.look()
    assert "the launcher of rank 0" in record(tmp_path)["cause"]


def test_a_save_after_a_signal_has_an_end(tmp_path: Path) -> None:
    rank = Rank(0, 1, HashStore(), tmp_path)
    rank.goes_on(3, "saving")
    rank.where.leaves_by = watchdog.time.monotonic() + 1000
    rank.look()
    rank.where.leaves_by = 0.0
    with pytest.raises(Ended):
        rank.look()
    assert record(tmp_path)["cause"] == "rank 0 did not save in time after a signal, and is still in: saving"


def test_stacks_are_written_while_an_extension_holds_the_interpreter(tmp_path: Path) -> None:
    stacks = StacksFile(str(tmp_path), 3)
    stacks.write_unless_asked_again(0.05)
    ctypes.PyDLL(None).usleep(400_000)  # PyDLL keeps the lock
    stacks.close()
    written = (tmp_path / "stacks" / "rank_3.txt").read_text()
    assert "in test_stacks_are_written_while_an_extension_holds_the_interpreter" in written


def test_no_file_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    stacks = StacksFile(str(tmp_path), 0)
    stacks.write_unless_asked_again(1000)
    stacks.close()
    assert list(tmp_path.iterdir()) == []


def test_a_watchdog_that_fails_stops_nothing(tmp_path: Path, capfd) -> None:
    rank = Rank(0, 1, HashStore(), tmp_path, hang_timeout_seconds=0.08)
    with mock.patch.object(Watchdog, "look", mock.Mock(side_effect=OSError("disk"))), rank.watchdog:
        rank.watchdog._thread.join()
    assert "the watchdog has stopped; the run goes on" in capfd.readouterr().err
