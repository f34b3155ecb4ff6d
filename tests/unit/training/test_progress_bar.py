"""A bar on a terminal, below the lines; nothing anywhere else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from contextlm.training.progress_bar import ProgressBar


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80)


def written(bar: ProgressBar) -> str:
    assert isinstance(bar.console.file, io.StringIO)
    return bar.console.file.getvalue()


def drawn(bar: ProgressBar, capsys: pytest.CaptureFixture) -> tuple[str, str]:
    """What a run of two iterations with a line after the first leaves on the console and on stdout."""
    bar.refreshed = -1.0  # a machine that has just started counts from 0
    bar.show(1)
    bar.print(" a log line")
    bar.refreshed = -1.0
    bar.show(2)
    bar.close()
    return written(bar), capsys.readouterr().out


def test_a_terminal_has_a_bar_below_the_lines(capsys: pytest.CaptureFixture) -> None:
    bar, lines = drawn(ProgressBar(2, console(True)), capsys)
    assert "1/2" in bar and "2/2" in bar and bar.index("1/2") < bar.index("2/2")
    assert lines == " a log line\n"  # untouched, and on stdout
    assert bar.count("\x1b[2K") >= 2  # its line is cleared for the log line, and at the end


@pytest.mark.parametrize(("terminal", "enabled"), [(False, True), (True, False)])
def test_elsewhere_there_are_only_the_lines(capsys: pytest.CaptureFixture, terminal: bool, enabled: bool) -> None:
    assert drawn(ProgressBar(2, console(terminal), enabled=enabled), capsys) == ("", " a log line\n")


def test_it_is_not_drawn_with_every_iteration() -> None:
    bar = ProgressBar(1000, console(True))
    for done in range(1, 1001):
        bar.refreshed = bar.refreshed or float("inf")  # as if no time had passed since the first
        bar.show(done)
    bar.close()
    assert "1000/1000" not in written(bar)
