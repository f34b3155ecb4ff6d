"""tools/evaluate.py and tools/generate.py on a real checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import metrics, run, tool
from tests.distributed.pool import Pool


@pytest.fixture
def call(pool: Pool, twenty_steps: Path, tmp_path: Path):
    """Call a tool on the run's checkpoint; returns the JSON that it writes."""

    def run_tool(name: str, *arguments: str, load: Path = twenty_steps) -> dict[str, Any]:
        output = tmp_path / "output.json"
        pool.run(tool, 1, name=name, arguments=["--load", str(load), "--output", str(output), *arguments])
        return json.loads(output.read_text())

    return run_tool


def test_evaluation_is_the_training_runs_own(call, twenty_steps: Path) -> None:
    whole = call("evaluate", "--batch-size", "3")
    (logged,) = (line for line in metrics(twenty_steps) if line.get("split") == "validation")
    # The run left out the last, incomplete batch, if there was one.
    assert 0 <= whole["tokens"] - logged["num_tokens"] < 2 * 66
    assert abs(whole["lm_loss"] / logged["lm_loss"] - 1) < 2e-3
    assert whole["perplexity"] == pytest.approx(math.exp(whole["lm_loss"]))
    # A byte is a token, but for the ends of documents.
    assert whole["tokens"] * 0.9 < whole["bytes"] < whole["tokens"]
    assert whole["bits_per_byte"] == pytest.approx(whole["lm_loss"] / math.log(2) * whole["tokens"] / whole["bytes"])
    assert 1.0 < whole["unigram_entropy"] < math.log(257)
    again = call("evaluate", "--batch-size", "8", load=twenty_steps / "iter_0000020")
    assert again["lm_loss"] == pytest.approx(whole["lm_loss"], rel=1e-6)


def test_controls_change_the_loss(call) -> None:
    losses = {
        control: call("evaluate", "--max-samples", "4", "--context-control", control)["lm_loss"]
        for control in ("none", "zero", "shuffle", "random", "previous")
    }
    assert len(set(losses.values())) == 5, losses


def test_generation_is_its_seeds(call) -> None:
    texts = {
        name: call("generate", "--prompt", "the word", "--max-new-tokens", "12", *more)["text"]
        for name, more in {"one": (), "same": (), "other": ("--seed", "2"), "greedy": ("--temperature", "0")}.items()
    }
    assert texts["one"] == texts["same"] != texts["other"]
    assert 0 < len(texts["greedy"]) <= 12
    # Among one likeliest token there is nothing to draw.
    assert call("generate", "--prompt", "the word", "--max-new-tokens", "12", "--top-k", "1")["text"] == texts["greedy"]


def test_programs_print_what_they_found(twenty_steps: Path, tmp_path: Path) -> None:
    output = tmp_path / "samples.json"
    arguments = ("--load", str(twenty_steps), "--prompt", "the word", "--max-new-tokens", "12", "--output", str(output))
    done = run("tools/generate.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.removesuffix("\n") == "the word" + json.loads(output.read_text())["text"]
    done = run("tools/evaluate.py", "--load", str(twenty_steps), "--max-samples", "4")
    assert done.returncode == 0, done.stderr
    assert "bits_per_byte" in done.stdout and "validation split" in done.stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("tools/evaluate.py", "--load", "no/such"), "--load no/such: holds no checkpoint"),
        (("tools/generate.py", "--load", "no/such", "--prompt", "x"), "--load no/such: holds no checkpoint"),
        (("tools/generate.py", "--load", "x", "--prompt", "x", "--top-p", "2", "--temperature", "-1"), "--top-p 2.0"),
    ],
)
def test_bad_input(command: tuple[str, ...], message: str) -> None:
    done = run(*command)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
