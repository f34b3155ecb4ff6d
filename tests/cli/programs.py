"""Runs our programs as a user does, in processes of their own."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Small enough that nearly all of a run's time is its start.
SMALL = (
    "--model", "contextlm-gpt2-tiny", "--hidden-size", "64", "--seq-length", "66", "--tokenizer-type", "ByteTokenizer",
    "--micro-batch-size", "2", "--global-batch-size", "4", "--lr", "3e-3", "--lr-warmup-iters", "0",
)  # fmt: skip


def run(*command: str, processes: int = 1, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program of the checkout, under torchrun if it takes several processes."""
    launcher = [sys.executable]
    if processes > 1:
        rendezvous = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0")
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), *rendezvous]
    return subprocess.run(
        [*launcher, *command], cwd=ROOT, env=environment(**variables), capture_output=True, text=True, timeout=600
    )


def environment(**variables: str) -> dict[str, str]:
    """That of a process of its own, which finds the checkout and is no rank of ours."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ours = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}


def tool(name: str, arguments: list[str]) -> None:
    """Call the main function of `tools/NAME.py`; run by the pool, whose processes have imported torch already."""
    importlib.import_module(f"tools.{name}").main(arguments)


def train(
    data: Path, folder: Path, *more: str, processes: int = 1, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Train the small model on a dataset, saving to and resuming from `folder`."""
    places = ("--data-path", str(data), "--save", str(folder), "--load", str(folder))
    return run("pretrain_contextlm.py", *SMALL, *places, *more, processes=processes, **variables)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> list[dict[str, Any]]:
    """The history of a run."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    """The training losses of a run, which must be those of iterations 1, 2, 3, ..."""
    lines = [line for line in metrics(folder) if "split" not in line]
    assert [line["iteration"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["lm_loss"] for line in lines]


def write_corpus(path: Path, documents: int = 200) -> None:
    """Documents of made-up words, the same on every machine."""
    draw = random.Random(0)
    words = ["".join(draw.choice("aeioubcdfgklmnprst") for _ in range(draw.randint(2, 7))) for _ in range(150)]
    with open(path, "w") as file:
        for _ in range(documents):
            text = " ".join(draw.choice(words) for _ in range(draw.randint(20, 120)))
            file.write(json.dumps({"text": text}) + "\n")


def make_dataset(folder: Path) -> Path:
    """The corpus under the ByteTokenizer; returns the prefix for `--data-path`."""
    write_corpus(folder / "corpus.jsonl")
    made = run(
        "tools/preprocess_data.py", "--input", str(folder / "corpus.jsonl"), "--output-prefix", str(folder / "words"),
        "--append-eod", "--tokenizer-type", "ByteTokenizer",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "words_text_document"
