"""A program whose reader or user has enough ends as others do: without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contextlm.errors import until_the_reader_leaves
from tests.cli.programs import ROOT, environment
from tools import generate

DRY = ("--model", "gpt2-tiny", "--vocab-size", "257")


@pytest.mark.parametrize(
    "command",
    [
        ("pretrain_contextlm.py", *DRY, "--dry-run"),
        ("pretrain_contextlm.py", *DRY, "--print-config"),
        ("pretrain_contextlm.py", "--help"),
        ("tools/dataset_stats.py", "--input"),
        ("tools/plan.py", *DRY),
    ],
    ids=" ".join,
)
def test_a_reader_that_leaves_is_no_error(data: Path, command: tuple[str, ...]) -> None:
    given = (str(data),) if command[-1] == "--input" else ()
    reading, writing = os.pipe()
    os.close(reading)  # it is gone before the first word
    done = subprocess.run(
        [sys.executable, *command, *given],
        cwd=ROOT,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_pipe_of_another_process_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenPipeError), until_the_reader_leaves():
        raise BrokenPipeError


def test_ctrl_c_at_the_prompt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "generate", asked)
    with pytest.raises(SystemExit) as left:
        generate.main(["--load", "runs/my"])
    assert left.value.code == 130 and capsys.readouterr() == ("", "")
