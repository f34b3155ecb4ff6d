"""The main job in a short setting: raw text, two models trained in parallel, a report; and the models learn."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.programs import losses, metrics, run

ITERATIONS = 120


def test_main_job(tmp_path: Path) -> None:
    job = ("examples/quickstart/run.py", "--iterations", str(ITERATIONS), "--folder", str(tmp_path))
    done = run(*job)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {}
    for name in ("contextlm", "gpt2"):
        folder = tmp_path / name
        results[name] = json.loads((folder / "evaluation.json").read_text())
        assert len(losses(folder)) == results[name]["iteration"] == ITERATIONS
        assert json.loads((folder / "samples.json").read_text())["text"]
        assert [line["iteration"] for line in metrics(folder) if "split" in line][-1] == ITERATIONS
    # The models saw the same tokens, and were scored on the same.
    assert results["contextlm"]["data_fingerprint"] == results["gpt2"]["data_fingerprint"]
    assert results["contextlm"]["tokens"] == results["gpt2"]["tokens"] > 50_000
    # The layout changed half way.
    first, second = (
        json.loads((tmp_path / "contextlm" / f"iter_{iteration:07d}" / "run.json").read_text())
        for iteration in (ITERATIONS // 2, ITERATIONS)
    )
    assert (first["layout"], second["layout"]) == ("TP 2 x PP 2 x DP 1", "TP 1 x PP 2 x DP 2")
    # It learned: the frequencies of the tokens alone give the unigram entropy.
    assert results["contextlm"]["lm_loss"] < results["contextlm"]["unigram_entropy"] - 1.0
    report = (tmp_path / "report.html").read_text()
    assert "<svg" in report and "reconstruction" in report and "http://" not in report.replace("http://www.w3.org", "")

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    again = run(*job)
    assert again.returncode == 0
    changed = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == []
