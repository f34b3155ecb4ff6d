"""Run folders as training leaves them, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml


def write_run(folder: Path, *, chunk_size: int = 4, iterations: int = 60, floor: float = 4.0, seed: int = 1234) -> Path:
    """A run that was stopped half way and continued in another layout."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(chunk_size + seed)
    lines: list[dict[str, Any]] = []
    for iteration in range(1, iterations + 1):
        loss = floor + 3 * float(np.exp(-iteration / 15)) + 0.05 * float(rng.normal())
        lines.append(
            {
                "iteration": iteration,
                "lm_loss": loss,
                "grad_norm": 1.0 + 5 / iteration,
                "learning_rate": 1e-3,
                "consumed_samples": 16 * iteration,
                "consumed_tokens": 4096 * iteration,
                "mfu": None,
                "tokens_per_second": 8192.0,
                "elapsed_ms": 500.0,
                "data_wait_ms": 20.0,
                "gate": 0.1 if chunk_size and iteration % 10 == 0 else None,
                "peak_memory_bytes": 3 * 2**30 if iteration % 10 == 0 else None,
            }
        )
        if iteration % 20 == 0:
            lines.append(
                {
                    "iteration": iteration,
                    "split": "validation",
                    "lm_loss": loss + 0.1,
                    "perplexity": 60.0,
                    "bits_per_byte": 2.0,
                    "lm_loss_by_position": [4.3, 4.2, 4.1, 4.0] if chunk_size else None,
                    "lm_loss_context_zeroed": 4.56789 if chunk_size else None,
                }
            )
    write_lines(folder / "metrics.jsonl", lines)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(iterations))
    for iteration, tensor in ((iterations // 2, 2), (iterations, 1)):
        checkpoint = folder / f"iter_{iteration:07d}"
        checkpoint.mkdir()
        config = {
            "preset": "contextlm-gpt2-tiny" if chunk_size else "gpt2-tiny",
            "model": {"num_layers": 4},
            "training": {"seed": seed, "train_iters": iterations},
            "context": {"context_chunk_size": chunk_size},
            "parallel": {"tensor_model_parallel_size": tensor},
            "checkpoint": {"save": str(folder)},
        }
        (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
        layout = f"TP {tensor} x PP 2 x DP {2 // tensor}"
        details = {
            "vocab_size": 515,
            "layout": layout,
            "data_fingerprint": "0123456789abcdef" * 4,
            "versions": {"torch": "2.13.0"},
        }
        (checkpoint / "run.json").write_text(json.dumps(details))
    return folder


def finish_run(folder: Path) -> None:
    """Evaluate and sample it."""
    scores = {
        "lm_loss": 4.05678,
        "lm_loss_stderr": 0.0123,
        "perplexity": 57.78,
        "bits_per_byte": 1.9876,
        "tokens": 1000,
    }
    (folder / "evaluation.json").write_text(json.dumps(scores))
    (folder / "samples.json").write_text(json.dumps({"prompt": "Return", "text": "Return a <b>list</b>"}))


def write_history(folder: Path) -> None:
    """It began, was killed, went on in another layout, skipped a NaN, lost a rank, went on once more and is done."""
    command = {"directory": "/work here", "environment": {"OMP_NUM_THREADS": "1"}}
    first, second = (
        {**command, "command": ["python", "pretrain_contextlm.py", "--tensor-model-parallel-size", size]}
        for size in ("2", "1")
    )
    begin = {"what": "begin", "git_commit": "c0ffee"}
    failure = {"what": "failure", "status": 1, "rank": 3, "cause": "out of memory", "remedy": "try less", "attempt": 0}
    events = [
        begin | {"iteration": 0, "layout": "TP 2 x PP 2 x DP 1", "started_with": first},
        begin | {"iteration": 30, "layout": "TP 1 x PP 2 x DP 2", "started_with": second},
        failure,
        begin | {"iteration": 45, "layout": "TP 1 x PP 2 x DP 2", "started_with": second},
        {"what": "end", "iteration": 60},
    ]
    times = [f"2026-01-01T00:0{minute}:00Z" for minute in range(len(events))]
    write_lines(folder / "events.jsonl", [{"time": time, **event} for time, event in zip(times, events, strict=True)])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["iteration"] == 40 and "split" not in line:
            line |= {"skipped": "nan loss", "lm_loss": None}
    write_lines(folder / "metrics.jsonl", lines)
    (folder / "bad_steps").mkdir()
    described = {"iteration": 40, "why": "the loss is NaN on rank 2"}
    (folder / "bad_steps" / "iteration_0000040.json").write_text(json.dumps(described))
    (folder / "exit.json").write_text(json.dumps({"status": 0, "rank": 0, "cause": None, "attempt": 0}))


def write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    """A .jsonl file."""
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
