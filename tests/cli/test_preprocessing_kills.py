"""SIGKILL at a random moment of tools/preprocess_data.py: nothing looks complete that is not, nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.programs import ROOT, environment

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

TOOL = (sys.executable, str(ROOT / "tools" / "preprocess_data.py"))
OPTIONS = ("--append-eod", "--tokenizer-type", "ByteTokenizer", "--partitions", "3", "--workers", "2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7.4 MB, of which each third is worth two worker processes."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with open(path, "w") as stream:
        for i in range(3000):
            stream.write(json.dumps({"text": f"document {i}: " + "some words " * (i % 450)}) + "\n")
    return path


@pytest.mark.parametrize(
    ("kills", "seed"), [(2, 0), pytest.param(20, 1, marks=pytest.mark.full)], ids=["few", "twenty"]
)
def test_a_killed_run_is_finished_by_the_same_command(corpus: Path, tmp_path: Path, kills: int, seed: int) -> None:
    pieces = tmp_path / "whole" / "pieces"
    for shard in range(3):  # What the partitions must be.
        options = (*OPTIONS[:3], "--num-shards", "3", "--shard", str(shard))
        subprocess.run([*TOOL, "--input", corpus, "--output-prefix", pieces, *options], check=True, env=environment())
    began = time.monotonic()
    command = [*TOOL, "--input", str(corpus), "--output-prefix", "x", *OPTIONS]
    command[5] = str(tmp_path / "whole" / "c")
    subprocess.run(command, check=True, env=environment())
    duration = time.monotonic() - began
    whole = contents(tmp_path / "whole" / "c_text_document")
    draw = random.Random(seed)
    for kill in range(kills):
        folder = tmp_path / f"killed{kill}"
        command[5] = str(folder / "c")
        with killed_after(command, draw.uniform(0, duration)) as group:
            for index in folder.rglob("*.idx"):
                if index.with_suffix(".bin").exists():
                    piece = index.name.removesuffix("_text_document.idx")
                    expected = whole if piece == "c" else contents(Path(f"{pieces}-{piece}_text_document"))
                    found = contents(index.with_suffix(""))
                    assert {suffix: found[suffix] for suffix in (".bin", ".idx")} == {
                        suffix: expected[suffix] for suffix in (".bin", ".idx")
                    }
            assert_gone(group)
        again = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert contents(folder / "c_text_document") == whole
        assert sorted(path.name for path in folder.iterdir()) == [
            f"c_text_document.{end}" for end in ("bin", "idx", "json")
        ]


def contents(prefix: Path) -> dict[str, bytes]:
    """The three files of a dataset, as far as they are there."""
    paths = [Path(f"{prefix}{suffix}") for suffix in (".bin", ".idx", ".json")]
    return {path.suffix: path.read_bytes() for path in paths if path.exists()}


@contextlib.contextmanager
def killed_after(command: list[str], seconds: float) -> Iterator[int]:
    """The command, killed; gives the process group that its workers are in too."""
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def assert_gone(group: int) -> None:
    """No process of the group goes on: workers notice that their parent is gone, one after the other."""
    deadline = time.monotonic() + 60
    while alive := [pid for pid, state, its_group in processes() if its_group == group and state not in "ZX"]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def processes() -> Iterator[tuple[int, str, int]]:
    """Number, state and group of every process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = path.read_text().rsplit(") ", 1)[1].split()[:3]
            yield int(path.parent.name), state, int(group)
