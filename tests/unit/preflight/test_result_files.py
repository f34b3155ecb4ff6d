"""A result that cannot be written is told before the work that makes it, and a disk that fails later leaves nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import ModuleType

import pytest

from contextlm import atomic_files
from contextlm.errors import UserError
from contextlm.preflight import result_files
from tests.unit.analysis.report_runs import write_run
from tests.unit.comparison.studies import study_tree, write_study
from tools import compare, dataset_stats, evaluate, generate, report, verify


def fail(*_: object) -> None:
    """A call of the system, on a disk that has just become full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def told(program: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a tool says before it ends with status 1."""
    with pytest.raises(SystemExit) as left:
        program.main([str(argument) for argument in arguments])
    assert left.value.code == 1
    return capsys.readouterr().err


def test_what_can_be_written_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    for file in (None, tmp_path / "old.json", tmp_path / "new.json", str(tmp_path / "not" / "yet" / "new.json")):
        assert result_files.problems("--output", file) == []
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    result_files.write("--output", tmp_path / "not" / "yet" / "new.json", b"new")
    assert (tmp_path / "not" / "yet" / "new.json").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is a folder; give the name of a file"),
        ("pipe", "is a device or a pipe; give the name of a file"),
        ("file/x.json", "cannot be written: Not a directory; make room, or give another place"),
        (f"{'x' * 300}/x.json", "cannot be written: File name too long; make room, or give another place"),
    ],
    ids=["folder", "pipe", "below a file", "name"],
)
def test_what_cannot_be_written_is_told(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert result_files.problems("--output", tmp_path / name) == [f"--output {tmp_path / name}: {says}"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch, call: str) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    monkeypatch.setattr(atomic_files.os, call, fail)
    with pytest.raises(UserError, match=r"--output .*result.json: cannot be written: No space left on device; make"):
        result_files.write("--output", file, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"] and file.read_text() == "old"


@pytest.mark.parametrize(
    ("program", "given", "flag"),
    [
        (evaluate, ("--load", "no/such"), "--output"),
        (generate, ("--load", "no/such"), "--output"),
        (verify, ("no/such",), "--output"),
        (dataset_stats, ("--input", "no/such"), "--plot"),
    ],
)
def test_tools_look_before_they_open_anything(tmp_path: Path, capsys, program: ModuleType, given, flag: str) -> None:
    file = tmp_path / "file"
    file.touch()
    assert told(program, capsys, *given, flag, file / "x.svg") == (
        f"error: {flag} {file}/x.svg: cannot be written: Not a directory; make room, or give another place\n"
    )


def test_a_page_and_a_disk_that_becomes_full(tmp_path: Path, capsys, monkeypatch) -> None:
    run, page = write_run(tmp_path / "run"), tmp_path / "page.html"
    with monkeypatch.context() as full:
        full.setattr(atomic_files.os, "replace", fail)
        assert f"error: --output {page}: cannot be written: No space" in told(report, capsys, run, "--output", page)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_study_looks_at_its_folder_before_it_makes_tokens(tmp_path: Path, capsys) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "a"}\n')
    study = write_study(tmp_path, study_tree() | {"tokenizer": {"vocab_size": 400}})
    given = (study, "--text", corpus, "--folder", corpus / "below")
    assert f"error: --folder {corpus}/below: cannot be written: Not a directory" in told(compare, capsys, *given)
