"""A stopped run continues exactly: 20 iterations = 10 + a new process + 10."""

from __future__ import annotations

import json
import re
from pathlib import Path

from contextlm.analysis.checkpoint_size import FILES_BYTES, checkpoint_bytes
from contextlm.config import load, parse
from tests.cli.programs import SMALL, events, losses, metrics, run, train

LOG_LINE = re.compile(
    r"^ \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\] iteration [ \d]{8}/[ \d]{8} \| consumed samples: [ \d]{12} \| "
    r"elapsed time per iteration \(ms\): \d+\.\d \| throughput per GPU \(TFLOP/s/GPU\): \d+\.\d \| "
    r"learning rate: \d\.\d{6}E[-+]\d\d \| global batch size: [ \d]{5} \| lm loss: \d\.\d{6}E[-+]\d\d \| "
    r"loss scale: 1\.0 \| grad norm: \d+\.\d{3} \| number of skipped iterations: +0 \| "
    r"number of nan iterations: +0 \|",
    re.MULTILINE,
)


def test_ten_and_ten_are_twenty(data: Path, twenty_steps: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped = train(data, folder, "--train-iters", "20", "--exit-interval", "10")
    assert stopped.returncode == 0, stopped.stderr
    assert "fresh start" in stopped.stdout and len(losses(folder)) == 10
    assert "checkpoints: at the end, and when a signal or Ctrl-C stops it" in stopped.stdout
    assert (folder / "latest_checkpointed_iteration.txt").read_text().strip() == "10"
    # What a killed run wrote after its last checkpoint, half a line included, is cut off.
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"iteration": 11, "lm_loss": 0.0}) + '\n{"iteration": 12, "lm_')
    # A tracker that a full disk left empty is told, and the checkpoint found.
    (folder / "latest_checkpointed_iteration.txt").write_bytes(b"")
    resumed = train(data, folder, "--train-iters", "20", "--exit-interval", "10")
    assert resumed.returncode == 0, resumed.stderr
    assert "iteration 10" in resumed.stdout and resumed.stdout.count("names no checkpoint that is there: using") == 1
    assert losses(folder) == losses(twenty_steps)
    assert len(LOG_LINE.findall(stopped.stdout)) == len(LOG_LINE.findall(resumed.stdout)) == 1
    norms = [[line["grad_norm"] for line in metrics(f) if "split" not in line] for f in (folder, twenty_steps)]
    assert norms[0] == norms[1]

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "exit.json"}
    again = train(data, folder, "--train-iters", "20", "--exit-interval", "10")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    changed = [path for path, time in before.items() if path.is_file() and path.stat().st_mtime_ns != time]
    assert changed == []  # its history neither: it has not begun again
    assert [(event["what"], event["iteration"]) for event in events(folder)] == [
        ("begin", 0), ("end", 10), ("begin", 10), ("end", 20),
    ]  # fmt: skip
    command = events(folder)[-2]["started_with"]["command"]
    assert command[1] == "pretrain_contextlm.py" and command[-2:] == ["--exit-interval", "10"]


def test_eval_iters_0_never_evaluates(data: Path, twenty_steps: Path, tmp_path: Path) -> None:
    """In a run that saves no checkpoint, but keeps its metrics and its configuration."""
    places = ("--data-path", str(data), "--output-dir", str(tmp_path))
    words = (*SMALL, *places, "--train-iters", "2", "--eval-interval", "1", "--eval-iters", "0")
    done = run("pretrain_contextlm.py", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.yaml",
        "events.jsonl",
        "exit.json",
        "metrics.jsonl",
    ]
    assert load(tmp_path / "config.yaml") == parse(words, {}).config
    assert len(losses(tmp_path)) == 2 and not any("split" in line for line in metrics(tmp_path))
    assert any("split" in line for line in metrics(twenty_steps))


def test_exit_status_and_resolved_configuration_are_kept(data: Path, twenty_steps: Path) -> None:
    record = json.loads((twenty_steps / "exit.json").read_text())
    assert record.pop("job")["host"] and record == {"status": 0, "rank": 0, "cause": None, "attempt": 0}
    places = ("--data-path", str(data), "--save", str(twenty_steps), "--load", str(twenty_steps))
    meant = parse([*SMALL, *places, "--train-iters", "20"], {}).config
    assert meant.model.hidden_size == 64 and meant.training.train_iters == 20
    for saved in (twenty_steps / "iter_0000020" / "config.yaml", twenty_steps / "config.yaml"):
        assert load(saved) == meant and parse(["--config", str(saved)], {}).config == meant
    facts = json.loads((twenty_steps / "iter_0000020" / "run.json").read_text())
    assert facts["iteration"] == 20 and facts["consumed_samples"] == 80 and facts["layout"] == "TP 1 x PP 1 x DP 1"


def test_the_size_of_a_checkpoint_is_known_before(twenty_steps: Path) -> None:
    folder = twenty_steps / "iter_0000020"
    tensors = sum(path.stat().st_size for path in folder.glob("*.distcp"))
    others = sum(path.stat().st_size for path in folder.iterdir()) - tensors
    formula = checkpoint_bytes(load(folder / "config.yaml"), 257) - FILES_BYTES
    assert formula < tensors < 1.15 * formula and others < FILES_BYTES  # 60 kB are the tensors' headers
