"""What a signal does to a process, by itself: agreed stops are in tests/distributed/test_stops.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from contextlm.config.fields import build
from contextlm.parallel.agreement import Agreement
from contextlm.training import stopping
from contextlm.training.stopping import Stopping
from contextlm.training.whereabouts import Whereabouts


class Alone:
    """The hosts of a run of one rank."""

    def __init__(self) -> None:
        self.questions = 0

    def largest(self, *numbers: float) -> list[float]:
        self.questions += 1
        return [float(number) for number in numbers]


def stop(said: list[str] | None = None, hosts: Any = None, **values: Any) -> Stopping:
    run = SimpleNamespace(config=build({"save": "nowhere"} | values, None), where=Whereabouts())
    return Stopping(run, hosts or Alone(), [].append if said is None else said.append)


@pytest.fixture
def clock():
    """The time that the module sees, in seconds; a test sets it."""
    with mock.patch.object(stopping.time, "monotonic", return_value=100.0) as clock:
        yield clock


@contextlib.contextmanager
def heard(number: signal.Signals) -> Iterator[None]:
    """Inside, the signal is not ignored, as Ctrl-C is by what runs in the background, this suite for one."""
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_stops_after_the_next_question(number: signal.Signals) -> None:
    said: list[str] = []
    with heard(number), stop(said) as loop:
        assert not loop.wanted()
        os.kill(os.getpid(), number)
        until = time.monotonic() + 60
        while not loop.wanted():
            assert time.monotonic() < until
    assert loop.signal_name == number.name and said == [f"{number.name}: saving, then exit with status 75"]


def test_the_status_is_recorded_at_the_save(tmp_path: Path) -> None:
    with stop(output_dir=str(tmp_path)) as loop:
        loop.saved()
        assert not (tmp_path / "exit.json").exists()  # the end of its time is what was asked for
        loop.signal_name = "SIGTERM"
        loop.saved()
        assert json.loads((tmp_path / "exit.json").read_text())["status"] == 75


def test_without_save_or_without_the_handler_a_signal_ends_the_process_as_ever() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stop():
        assert [signal.getsignal(number) for number in stopping.SIGNALS] != before
    for values in ({"save": None}, {"exit_signal_handler": False}):
        with stop(**values):
            assert [signal.getsignal(number) for number in stopping.SIGNALS] == before


@pytest.mark.parametrize(
    ("save", "what_then"), [("nowhere", "saving, then exit"), (None, "exit; without --save nothing is saved")]
)
def test_the_end_of_its_time_says_whether_it_saves(save: str | None, what_then: str) -> None:
    said: list[str] = []
    assert stop(said, exit_duration_in_mins=1e-6, save=save).wanted()
    assert said == [f"--exit-duration-in-mins is over: {what_then}"]


def test_a_second_signal_ends_it_at_once_but_an_echo_does_not(clock, tmp_path: Path) -> None:
    with stop(output_dir=str(tmp_path)), mock.patch.object(signal, "raise_signal") as raised:
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)
        clock.return_value += 0.5
        handler(signal.SIGTERM, None)
        raised.assert_not_called()
        clock.return_value += 1.0
        handler(signal.SIGTERM, None)
        raised.assert_called_once_with(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    record = json.loads((tmp_path / "exit.json").read_text())
    assert record["status"] == 1 and record["cause"] == "a second signal, SIGTERM: left without saving"


def test_questions_are_a_second_apart_however_long_iterations_are(clock) -> None:
    for seconds, questions in ((0.01, 10), (0.25, 10), (5.0, 40)):
        hosts = Alone()
        loop = stop(hosts=hosts)
        for _ in range(int(10 / seconds) if seconds < 1 else 40):
            clock.return_value += seconds
            loop.wanted()
        assert hosts.questions == pytest.approx(questions, abs=2)


def test_who_asks_for_nothing_is_not_asked() -> None:
    hosts = Alone()
    loop = stop(hosts=hosts, exit_signal_handler=False)
    assert not any(loop.wanted() for _ in range(10)) and hosts.questions == 0


def test_hosts_that_ask_nothing_make_no_group() -> None:
    with mock.patch("torch.distributed.new_group") as made, mock.patch("torch.distributed.all_reduce"):
        hosts = Agreement(1)
        loop = stop(hosts=hosts, exit_signal_handler=False)
        assert not any(loop.wanted() for _ in range(10)) and not made.called
        assert [hosts.largest(1, 2) for _ in range(2)] == [[1, 2]] * 2 and made.call_count == 1


def test_a_signal_bounds_the_save(clock, tmp_path: Path) -> None:
    with stop(signal_save_timeout_seconds=40.0, output_dir=str(tmp_path)) as loop:
        assert loop._where.leaves_by is None
        os.kill(os.getpid(), signal.SIGTERM)
        while not loop.wanted():
            clock.return_value += 1
        assert loop._where.leaves_by == 140
        loop.saved()
        assert loop._where.leaves_by is None
