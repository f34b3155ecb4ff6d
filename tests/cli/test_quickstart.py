"""The main job in a short setting: raw text, two models trained in parallel, a report; and a model that learns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.programs import ROOT, losses, metrics, run

ITERATIONS, LEARNING_ITERATIONS = 12, 120  # of the quickstart's own 240


def job(folder: Path) -> tuple[str, ...]:
    """The quickstart's command."""
    return ("examples/quickstart/run.py", "--iterations", str(ITERATIONS), "--folder", str(folder))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished job."""
    folder = tmp_path_factory.mktemp("quickstart")
    ended = run(*job(folder))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_main_job(done: Path) -> None:
    results = {}
    for name in ("contextlm", "gpt2"):
        results[name] = json.loads((done / name / "evaluation.json").read_text())
        assert len(losses(done / name)) == results[name]["iteration"] == ITERATIONS
        assert json.loads((done / name / "samples.json").read_text())["text"]
        assert [line["iteration"] for line in metrics(done / name) if "split" in line][-1] == ITERATIONS
    # The models saw the same tokens, and were scored on the same.
    assert results["contextlm"]["data_fingerprint"] == results["gpt2"]["data_fingerprint"]
    assert results["contextlm"]["tokens"] == results["gpt2"]["tokens"] > 50_000
    # The layout changed half way.
    first, second = (
        json.loads((done / "contextlm" / f"iter_{iteration:07d}" / "run.json").read_text())
        for iteration in (ITERATIONS // 2, ITERATIONS)
    )
    assert (first["layout"], second["layout"]) == ("TP 2 x PP 2 x DP 1", "TP 1 x PP 2 x DP 2")
    report = (done / "report.html").read_text()
    assert "<svg" in report and "reconstruction" in report and "http://" not in report.replace("http://www.w3.org", "")


def test_running_it_again_changes_nothing(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file() and path.name != "lock"}
    assert run(*job(done)).returncode == 0
    assert [path for path, time in before.items() if path.stat().st_mtime_ns != time] == []


@pytest.mark.full
def test_the_model_learns(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the quickstart's budget, in one process: 1 nat below what the tokens' frequencies alone give."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "quickstart"))
    from plan import Layout, Machine, Settings, _train

    settings, machine = Settings(folder=done, iterations=LEARNING_ITERATIONS), Machine(gpus=0, cores=1)
    command = _train(settings, machine, Layout(1, 1, 1), sys.executable, "contextlm-gpt2-tiny", tmp_path)
    trained = run(*command[1:], OMP_NUM_THREADS="2")
    assert trained.returncode == 0, trained.stderr
    loss = [line["lm_loss"] for line in metrics(tmp_path) if line.get("split") == "validation"][-1]
    entropy = json.loads((done / "contextlm" / "evaluation.json").read_text())["unigram_entropy"]
    assert loss < entropy - 1.0, (loss, entropy)
