"""tools/replay_step.py runs one iteration again, bit for bit in its layout, and says so where it is another one."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import SMALL, metrics, tool
from tests.distributed.pool import Pool
from tests.distributed.stop_cases import command

PP2 = ("--pipeline-model-parallel-size", "2", "--hidden-dropout", "0.1")


def replayed(arguments: list[str]) -> tuple[Any, str, str]:
    """The tool's exit status, 0 or what it exits with, and what it prints and tells of errors; run by the pool."""
    status: Any
    printed, told, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        try:
            tool("replay_step", arguments)
        except SystemExit as left:
            status = left.code
    return status, printed.getvalue(), told.getvalue()


@pytest.fixture(scope="module")
def pipeline(pool: Pool, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 iterations on two stages, of which the fifth updates nothing."""
    folder = tmp_path_factory.mktemp("replay") / "run"
    words = [*SMALL, *PP2, "--data-path", str(data), "--save", str(folder), "--load", str(folder), "--eval-iters", "0"]
    words += ["--train-iters", "6", "--save-interval", "3", "--iterations-to-skip", "5"]
    assert pool.run(command, 2, words=words) == [0, 0]
    return folder


@pytest.mark.parametrize("iteration", [2, 6])
def test_an_iteration_reproduces_bit_for_bit(pool: Pool, pipeline: Path, iteration: int) -> None:
    words = ["--load", str(pipeline), "--iteration", str(iteration)]
    (status, printed, _), (other, nothing, _) = pool.run(replayed, 2, arguments=words)
    assert (status, other, nothing) == (0, 0, "")
    start = "a fresh start" if iteration == 2 else str(pipeline / "iter_0000003")
    assert printed.startswith(f"from {start}\n")
    assert f"iteration {iteration} reproduces bit for bit" in printed
    # Samples of this iteration with their losses, which are those of the whole.
    rows = re.findall(r"(\d+) +│ +0 +│ +[01] +│ +(\d\.\d+)", printed)
    assert sorted(int(number) for number, _ in rows) == list(range(4 * iteration - 4, 4 * iteration))
    mean = sum(float(loss) for _, loss in rows) / 4
    assert mean == pytest.approx(metrics(pipeline)[iteration - 1]["lm_loss"], abs=1e-6)


def test_what_does_not_reproduce_is_told(pool: Pool, pipeline: Path) -> None:
    changed = pipeline.parent / "changed"
    changed.mkdir()
    for path in pipeline.iterdir():
        if path.name != "metrics.jsonl":
            (changed / path.name).symlink_to(path)
    lines = metrics(pipeline)
    lines[5]["lm_loss"] *= 1.001
    (changed / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--load", str(changed), "--iteration", "6"]
    (status, printed, _), (other, *_) = pool.run(replayed, 2, arguments=words)
    assert (status, other) == ("iteration 6 does not reproduce", 1) and "0.001" in printed
    (status, printed, _), _ = pool.run(replayed, 2, arguments=[*words, "--tolerance", "0.01"])
    assert status == 0 and "iteration 6 reproduces within 0.01" in printed


def test_another_layout_is_named_as_a_reason(pool: Pool, data: Path, tmp_path: Path) -> None:
    words = [*SMALL, "--data-path", str(data), "--save", str(tmp_path), "--eval-iters", "0"]
    assert pool.run(command, 2, words=[*words, "--train-iters", "2", "--save-interval", "1"]) == [0, 0]
    first, second = metrics(tmp_path)
    second["lm_loss"] *= 1.001
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    ((status, *_),) = pool.run(replayed, 1, arguments=["--load", str(tmp_path), "--iteration", "2"])
    assert status.startswith("iteration 2 does not reproduce; another layout or device rounds otherwise")


@pytest.mark.full
def test_an_overflow_reproduces(pool: Pool, data: Path, tmp_path: Path) -> None:
    """So high a scale that all gradients are infinite."""
    words = [*SMALL, "--data-path", str(data), "--save", str(tmp_path), "--load", str(tmp_path), "--eval-iters", "0"]
    words += ["--train-iters", "2", "--fp16", "--loss-scale", "1e30"]
    assert pool.run(command, 1, words=words) == [0]
    ((status, printed, _),) = pool.run(replayed, 1, arguments=["--load", str(tmp_path), "--iteration", "2"])
    assert status == 0 and "nan norm" in printed and "bit for bit" in printed


def test_what_cannot_be_replayed(pool: Pool, pipeline: Path, tmp_path: Path) -> None:
    for folder, iteration, processes, words in (
        (pipeline, 7, 2, "has no line of iteration 7; give one that it has"),
        (pipeline, 6, 1, "run it with 2 processes, as the run was: torchrun --nproc-per-node 2 tools/replay_step.py"),
        (tmp_path, 6, 1, "holds no config.yaml; give a folder that --save made"),
    ):
        words_given = ["--load", str(folder), "--iteration", str(iteration)]
        for status, _, told in pool.run(replayed, processes, arguments=words_given):
            assert status == 1 and words in told, told
