"""Preprocessing needs as much memory for a large input as for a small one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.programs import ROOT

PROGRAM = str(ROOT / "tools" / "preprocess_data.py")
# Runs the tool and prints the most memory that it, and any of its workers, has needed, in MB.
MEASURED = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print("peak", *(resource.getrusage(one).ru_maxrss // 1000 for one in who))
"""


def peak(corpus: Path, *flags: str | Path) -> list[int]:
    words = ["--input", corpus, "--output-prefix", corpus.parent / "out", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A program's count begins with what its parent needs; the shell's child has a small one.
    shell = ("sh", "-c", '"$@"; exit $?', "sh", sys.executable)
    done = subprocess.run(
        [*shell, "-c", MEASURED, PROGRAM, *map(str, words)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.splitlines()[-1].split()[1:]]


def write_words(path: Path, megabytes: int) -> Path:
    """Documents whose words hardly ever come again."""
    draw = random.Random(0)
    with open(path, "w") as stream:
        for _ in range(megabytes * 10):
            text = " ".join(format(draw.getrandbits(72), "x") for _ in range(5263))
            stream.write(json.dumps({"text": text}) + "\n")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Shown by hand for 2 GB too, see docs/results.md."""
    small, large = (write_words(tmp_path / f"{size}.jsonl", size) for size in (6, 36))
    flags = ("--tokenizer-type", "ByteTokenizer", "--workers", "2")
    before, after = peak(small, *flags), peak(large, *flags)
    assert max(before) < 200  # these are theirs, not this process's
    assert max(b - a for a, b in zip(before, after, strict=True)) < 24, (before, after)
