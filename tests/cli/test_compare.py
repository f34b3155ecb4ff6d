"""tools/compare.py: what is missing is trained, what changed is noticed, and the differences are those of the runs."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contextlm.child_processes import only_one
from contextlm.comparison.runs import Run, plan_runs
from contextlm.comparison.study import read_study
from contextlm.comparison.tokens import data_config
from contextlm.config import parse
from tests.cli.programs import ROOT, losses, write_corpus
from tests.unit.comparison.studies import study_tree, write_study
from tools import compare

STAND_IN = (sys.executable, str(ROOT / "tests" / "cli" / "trainer_stand_in.py"))


class Job:
    """A study in a folder of its own, trained by the stand-in."""

    def __init__(self, place: Path) -> None:
        self.place, self.folder = place, place / "all"
        self.tree: dict[str, Any] = study_tree() | {"tokenizer": {"vocab_size": 400}}
        self.arguments = ["--text", str(place / "corpus.jsonl"), "--folder", str(self.folder), "--jobs", "2"]
        write_corpus(place / "corpus.jsonl")

    def run(self, *more: str) -> int:
        return compare.main([str(write_study(self.place, self.tree)), *self.arguments, *more], STAND_IN)

    def ran(self) -> list[str]:
        """Names and first iterations of what was started since the last call."""
        file = self.folder / "ran"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return sorted(lines)

    def plan(self) -> list[Run]:
        """All runs of the study."""
        study = read_study(write_study(self.place, self.tree), str(self.place / "corpus.jsonl"))
        return plan_runs(study, self.folder, data_config(study.source))

    def only_two_arms(self) -> None:
        """Leave out what is matched, where it does not matter."""
        del self.tree["arms"]["deeper"]
        self.tree["baselines"] = ["plain"]

    def results(self) -> dict[str, Any]:
        return json.loads((self.folder / "results.json").read_text())


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr("contextlm.comparison.jobs.POLL_SECONDS", 0.01)
    return Job(tmp_path)


ALL = sorted(f"{arm}-seed{seed} 0" for arm in ("plain", "gated", "deeper") for seed in (1, 2, 3))
TWO_ARMS = [line for line in ALL if "deeper" not in line]


def test_pairs_are_trained_once_and_compared(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run() == 0 and job.ran() == ALL
    results = job.results()
    assert results["arms"]["gated"]["losses"] == pytest.approx({"1": 4.901, "2": 5.902, "3": 6.903})
    pairs = {(pair["arm"], pair["baseline"]): pair for pair in results["differences"]}
    assert list(pairs) == [("gated", "plain"), ("deeper", "plain"), ("gated", "deeper")]
    gated = pairs["gated", "plain"]
    # Differences of 0.099, 0.098, 0.097, however far apart the seeds are.
    assert gated["mean"] == pytest.approx(-0.098)
    assert gated["high"] - gated["mean"] == pytest.approx(4.3026527 * 0.001 / 3**0.5, rel=1e-6)
    page = (job.folder / "results.md").read_text()
    assert "| gated | plain | -0.0990 | -0.0980 | -0.0970 | -0.0980 | -0.1005 .. -0.0955 | better |" in page
    assert "| deeper | plain | +2.0000 | +2.0000 | +2.0000 | +2.0000 | +2.0000 .. +2.0000 | worse |" in page
    assert "num_layers 6 for params of gated" in page and "## Notes" not in page
    assert all((job.folder / name).read_text().startswith("<svg") for name in ("differences.svg", "losses.svg"))
    assert page in capsys.readouterr().out
    assert job.run() == 0 and job.ran() == [] and job.results() == results
    job.tree["seeds"] = [1, 2, 3, 7]
    assert job.run() == 0 and job.ran() == ["deeper-seed7 0", "gated-seed7 0", "plain-seed7 0"]


def test_a_failed_run_is_told_and_the_others_go_on(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.only_two_arms()
    job.folder.mkdir()
    (job.folder / "fail-gated-seed2").touch()
    assert job.run() == 1 and job.ran() == TWO_ARMS
    out = capsys.readouterr().out
    assert "gated-seed2: FAILED, exit status 3" in out and "    the cause" in out
    assert "- gated-seed2 is not finished." in out
    pairs = {(pair["arm"], pair["baseline"]): pair for pair in job.results()["differences"]}
    assert list(pairs["gated", "plain"]["by_seed"]) == ["1", "3"]
    (job.folder / "fail-gated-seed2").unlink()
    assert job.run() == 0 and job.ran() == ["gated-seed2 0"]
    assert "is not finished" not in (job.folder / "results.md").read_text()


def test_a_preempted_run_did_not_fail(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.only_two_arms()
    job.folder.mkdir()
    (job.folder / "fail-gated-seed2").write_text("75")
    assert job.run() == 1
    out = capsys.readouterr().out
    assert "gated-seed2: stopped by a signal, and saved" in out and "FAILED" not in out and "failed" not in out
    assert "gated-seed2: stopped; the same command continues from there" in out


def test_a_changed_study_is_noticed(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run() == 0 and job.ran() == ALL
    job.tree["arms"]["gated"]["context_fusion"] = "add"  # the arm that is matched to it stays as deep
    free = {"log_interval": 1, "progress_bar": False, "wandb_project": "ours", "eval_context_zeroed": False}
    job.tree["flags"] |= free  # these change no result
    with pytest.raises(SystemExit):
        job.run()
    error = capsys.readouterr().err
    names = "gated-seed1, gated-seed2, gated-seed3"
    assert f"error: {names}: begun with other options: context_fusion 'gated', now 'add'" in error
    assert "--retrain-changed" in error and job.ran() == []
    assert job.run("--retrain-changed") == 0
    assert job.ran() == ["gated-seed1 0", "gated-seed2 0", "gated-seed3 0"]
    with open(job.place / "corpus.jsonl", "a") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(SystemExit):
        job.run()
    assert "data_path" in capsys.readouterr().err


def test_every_run_is_a_command_that_training_understands(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job.run() == 0
    runs = job.plan()
    monkeypatch.chdir(job.folder)
    configs = {run.name: parse(run.words(), {}).config for run in runs}
    assert configs == {run.name: run.config for run in runs}
    assert {name: config.training.seed for name, config in configs.items()} == {run.name: run.seed for run in runs}
    assert {config.data for config in configs.values()} == {configs["plain-seed1"].data}
    assert all(config.checkpoint.resumes_itself for config in configs.values())


def test_a_dry_run_shows_the_arms_and_writes_nothing(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("--dry-run") == 0
    out = capsys.readouterr().out
    assert "3 arms x 3 seeds = 9 runs" in out and "num_layers 6 for params of gated" in out
    assert not job.folder.exists()


def test_an_estimate_times_each_arm_and_trains_nothing(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "only_one", functools.partial(only_one, patience=0.0))
    with only_one("comparison", job.folder, print), pytest.raises(SystemExit):
        job.run("--estimate")
    assert "another comparison is running" in capsys.readouterr().err and job.ran() == []
    assert job.run("--estimate") == 0
    assert sorted(job.ran()) == ["deeper 0", "gated 0", "plain 0"]
    assert "with --jobs 2" in capsys.readouterr().out and not (job.folder / "runs").exists()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_interrupted_continues(job: Job, stop: signal.Signals, tmp_path: Path) -> None:
    job.only_two_arms()
    job.folder.mkdir()
    (job.folder / "stop-gated-seed1").touch()
    code = f"import sys; from tools import compare; sys.exit(compare.main(sys.argv[1:], {STAND_IN!r}))"
    if stop == signal.SIGTERM:
        code = f"import signal; from tools.compare import _leave; signal.signal(signal.SIGTERM, _leave); {code}"
    command = [sys.executable, "-c", code, str(write_study(job.place, job.tree)), *job.arguments]
    with open(tmp_path / "out", "wb") as out:
        started = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out)
    tracker = job.folder / "runs" / "gated-seed1" / "latest_checkpointed_iteration.txt"
    wait_until(lambda: tracker.exists() and tracker.read_text() == "2")
    beside_it = next(run for run in job.plan() if run.name == "plain-seed1")
    wait_until(beside_it.is_finished)
    started.send_signal(stop)
    assert started.wait(timeout=60) == (130 if stop == signal.SIGTERM else -signal.SIGKILL)
    (job.folder / "stop-gated-seed1").unlink()
    job.ran()
    finished = {run.name for run in job.plan() if run.is_finished()}
    assert job.run() == 0  # the lock was to be had, so nothing of the old job is left
    again = job.ran()
    assert "gated-seed1 2" in again and "plain-seed1" in finished
    assert finished.isdisjoint(line.split()[0] for line in again)
    assert job.results()["notes"] == []


def test_at_a_terminal_there_are_bars(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    job.only_two_arms()
    assert job.run() == 0
    out = capsys.readouterr().out
    assert "all runs" in out and "\u2501" in out and "6 to go" not in out and "5 to go" in out and "0 to go" in out


@pytest.mark.full
def test_real_runs_resume_and_are_compared(tmp_path: Path) -> None:
    """Nothing stands in for training: killed in the first runs, continued, and equal to runs without a stop."""
    job = Job(tmp_path)
    job.only_two_arms()
    job.tree["flags"] |= {"hidden_size": 64, "train_iters": 30, "save_interval": 10, "log_interval": 5, "eval_iters": 2}
    path = write_study(job.place, job.tree)

    def command(folder: Path) -> list[str]:
        text = str(job.place / "corpus.jsonl")
        return [sys.executable, "tools/compare.py", str(path), "--text", text, "--folder", str(folder), "--jobs", "2"]

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command(job.folder), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    tracker = job.folder / "runs" / "plain-seed1" / "latest_checkpointed_iteration.txt"
    wait_until(tracker.exists)
    started.kill()
    started.wait()
    for folder in (job.folder, tmp_path / "whole"):
        done = subprocess.run(command(folder), cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert job.results() == whole and whole["notes"] == []
    assert losses(job.folder / "runs" / "plain-seed1") == losses(tmp_path / "whole" / "runs" / "plain-seed1")
