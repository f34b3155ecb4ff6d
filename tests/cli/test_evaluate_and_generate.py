"""tools/evaluate.py and tools/generate.py on a real checkpoint."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import metrics, run, tool
from tests.distributed.pool import Pool
from tests.examined_cases import greedy_without_cache, refusal


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


def test_a_report_has_texts_that_the_checkpoint_writes(pool: Pool, twenty_steps: Path, tmp_path: Path) -> None:
    pages = []
    for number in ("0", "2"):
        output = tmp_path / f"{number}.html"
        pool.run(tool, 1, name="report", arguments=[str(twenty_steps), "--samples", number, "--output", str(output)])
        pages.append(output.read_text())
    assert "given nothing" not in pages[0] and pages[1].count(f"{twenty_steps.name}, given nothing") == 2
    texts = re.findall(r"<pre class='sample'><b></b>([^<]*)</pre>", pages[1])
    assert len(set(texts)) == 2 and all(texts)


def test_programs_print_what_they_found(twenty_steps: Path, tmp_path: Path) -> None:
    output = tmp_path / "samples.json"
    arguments = ("--load", str(twenty_steps), "--prompt", "the word", "--max-new-tokens", "12", "--output", str(output))
    done = run("tools/generate.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.removesuffix("\n") == "the word" + json.loads(output.read_text())["text"]
    done = run("tools/evaluate.py", "--load", str(twenty_steps), "--max-samples", "4")
    assert done.returncode == 0, done.stderr
    assert "bits_per_byte" in done.stdout
    assert done.stdout.startswith(f"{twenty_steps / 'iter_0000020'}, validation split\n")  # in one piece


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


@pytest.fixture
def call_on(pool: Pool, tmp_path: Path):
    """Call a tool on a folder; returns the JSON that it writes."""

    def run_tool(name: str, load: str, *arguments: str) -> Any:
        output = tmp_path / "output.json"
        pool.run(tool, 1, name=name, arguments=["--load", load, "--output", str(output), *arguments])
        return json.loads(output.read_text())

    return run_tool


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Documents shorter and longer than the 66 positions of the model."""
    path = tmp_path / "texts.jsonl"
    documents = ["a cat", "It rained and rained. " * 9, "\u00e9t\u00e9 on the hill " * 5]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return str(path)


@pytest.mark.parametrize("kind", ["contextlm", "plain"])
def test_a_checkpoint_and_its_export_score_alike(call_on, model_folder, texts: str, kind: str) -> None:
    ours, theirs = (call_on("evaluate", model_folder(kind, exported), "--text", texts) for exported in (False, True))
    assert ours["lm_loss"] == pytest.approx(theirs["lm_loss"], rel=1e-5)
    assert ours["lm_loss_stderr"] == pytest.approx(theirs["lm_loss_stderr"], rel=1e-3)
    assert (ours["tokens"], ours["texts"]) == (
        ours["bytes"],
        3,
    )  # a byte is a token, and the first one is predicted too
    assert ours["bits_per_byte"] == pytest.approx(ours["lm_loss"] / math.log(2))
    assert (ours["format"], theirs["format"]) == ("contextlm", "huggingface")
    assert ours["iteration"] == 0 and len(ours["weights_sha256"]) == 64


def test_documents_apart_in_training_are_scored_as_there(call_on, model_folder, texts: str) -> None:
    """Nothing stands before a text then, as each document began the count anew; its first token is not predicted."""
    found = call_on("evaluate", model_folder("apart"), "--text", texts)
    assert found["bytes"] - found["tokens"] == 3 and math.isfinite(found["lm_loss"])
    text = call_on("generate", model_folder("apart"), "--prompt", "a cat", "--max-new-tokens", "8")["text"]
    assert isinstance(text, str)


def test_a_sliding_window_reads_more_and_predicts_the_same_tokens(call_on, model_folder, texts: str) -> None:
    found = {
        stride: call_on("evaluate", model_folder("contextlm"), "--text", texts, "--stride", str(stride), *more)
        for stride, more in ((66, ()), (16, ()), (1, ("--max-samples", "3")))
    }
    assert len({result["tokens"] for result in found.values()}) == 1
    assert len({result["lm_loss"] for result in found.values()}) == 3
    narrow = call_on("evaluate", model_folder("contextlm"), "--text", texts, "--window", "16")
    assert narrow["tokens"] == found[66]["tokens"] and narrow["lm_loss"] != found[16]["lm_loss"]


def test_documents_of_a_dataset_are_scored_by_themselves(call, twenty_steps: Path) -> None:
    """On what it was trained on: a little worse than as joined samples, which have the text before to go by."""
    joined, alone = call("evaluate"), call("evaluate", "--document-wise")
    assert alone["texts"] > 1 and alone["lm_loss_stderr"] > 0
    assert alone["tokens"] == alone["bytes"] == pytest.approx(joined["bytes"], rel=0.1)
    assert alone["lm_loss"] == pytest.approx(joined["lm_loss"], rel=0.1)


def test_last_words(call_on, model_folder, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("the cat sat\na dog and a bone\n\nit rained and rained\n")
    found = call_on("evaluate", model_folder("plain"), "--last-word", str(tmp_path / "words.txt"))
    assert found["texts"] == 3 and 0 <= found["accuracy"] <= 1 and found["perplexity_stderr"] > 0


def test_diagnostics(call_on, call, model_folder, texts: str, twenty_steps: Path) -> None:
    ours, theirs = (
        call_on("evaluate", model_folder("contextlm", exported), "--text", texts, "--window", "20", "--diagnose")
        for exported in (False, True)
    )
    assert set(ours["controls"]) == {"none", "zero", "shuffle", "random", "previous"}
    for kind in ("none", "zero", "shuffle", "previous"):
        assert ours["controls"][kind]["lm_loss"] == pytest.approx(theirs["controls"][kind]["lm_loss"], rel=1e-5)
    assert ours["controls"]["none"]["worth"] == 0 and ours["controls"]["zero"]["worth_stderr"] > 0
    assert len(ours["lm_loss_by_position"]) == 4
    # Without a complete chunk before it, a token has no context to lose.
    assert sum(ours["lm_loss_by_position"]) / 4 == pytest.approx(ours["controls"]["none"]["lm_loss"], rel=1e-4)
    for name in ("cosine_prediction_next_chunk", "effective_rank_predictions"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3)
    assert 1 < ours["effective_rank_predictions"] <= 64
    # On the training's own samples they are the training's own numbers.
    trained = call("evaluate", "--diagnose", "--batch-size", "4")
    (logged,) = (line for line in metrics(twenty_steps) if line.get("split") == "validation")
    assert trained["lm_loss_by_position"] == pytest.approx(logged["lm_loss_by_position"], rel=5e-3)
    assert trained["controls"]["zero"]["lm_loss"] == pytest.approx(logged["lm_loss_context_zeroed"], rel=2e-3)


@pytest.mark.parametrize("exported", [False, True], ids=["checkpoint", "exported"])
@pytest.mark.parametrize("kind", ["contextlm", "plain"])
def test_generation_with_a_cache_is_generation_without(call_on, pool: Pool, model_folder, kind, exported) -> None:
    folder = model_folder(kind, exported)
    expected = pool.run(greedy_without_cache, 1, load=folder, prompt="the cat", count=40)[0]
    options = ("--prompt", "the cat", "--temperature", "0", "--max-new-tokens", "40")
    assert call_on("generate", folder, *options)["text"] == expected != ""


def test_generation_goes_on_when_all_positions_are_full(call_on, model_folder, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("It rained. " * 10)  # 110 tokens; the model reads 66
    found = call_on("generate", model_folder("contextlm"), "--prompt-file", str(prompt), "--max-new-tokens", "100")
    assert found["prompt"] == prompt.read_text() and found["text"]


def test_an_export_is_scored_on_a_dataset(call_on, model_folder, data: Path) -> None:
    """Its tokenizer is the checkpoint's, so the dataset belongs to it."""
    given = ("--data-path", str(data), "--split", "80,20,0", "--max-samples", "6")
    ours, theirs = (call_on("evaluate", model_folder("contextlm", exported), *given) for exported in (False, True))
    assert ours["tokens"] == theirs["tokens"] == 6 * 66
    assert ours["lm_loss"] == pytest.approx(theirs["lm_loss"], rel=1e-5)
    assert ours["data_fingerprint"] != "" and ours["lm_loss_stderr"] > 0


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("--diagnose --tasks piqa", ["--diagnose: with a dataset"]),
        ("--diagnose --stride 4 --context-control zero", ["--diagnose: tries every", "--diagnose: reads samples"]),
        ("--diagnose --batch-size 1", ["--batch-size 1: give 2 or more"]),
        ("--text a.txt --context-control shuffle", ["--context-control shuffle: texts of one batch"]),
        ("--window 0 --stride 0", ["--window 0: give 1", "--stride 0: give 1"]),
        ("--text a.txt --stride 4 --context-control previous", []),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(words: str, refused: list[str]) -> None:
    from tools import evaluate

    found = evaluate.problems(evaluate.parser().parse_args(["--load", "x", *words.split()]))
    assert len(found) == len(refused) and all(a.startswith(b) for a, b in zip(found, refused, strict=True)), found


@pytest.mark.parametrize(
    ("name", "words", "refused"),
    [
        ("evaluate", ["--text", "absent.txt"], "absent.txt: cannot be read"),
        ("evaluate", ["--window", "67"], "--window 67: the model reads 66 tokens at most"),
        ("evaluate", ["--context-control", "zero"], "is a plain model without a context head"),
        ("evaluate", ["--data-path", "no/such"], "--data-path no/such: no such dataset"),
        ("generate", ["--prompt-file", "absent.txt"], "--prompt-file absent.txt: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_model_or_its_data_is_said(pool: Pool, model_folder, name, words, refused) -> None:
    assert refused in pool.run(refusal, 1, name=name, arguments=["--load", model_folder("plain"), *words])[0]
