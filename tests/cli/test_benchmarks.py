"""The benchmarks run and print their tables; what they conclude from numbers is right. Nothing here depends on time."""

from __future__ import annotations

import contextlib
import functools
import json
import random

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from tests.cli.programs import ROOT, run


def cells(output: str, heading: str) -> dict[str, list[str]]:
    """The table whose first heading this is: first cell -> the others."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading + "  "))
    block = "\n".join(lines[start + 1 :]).split("\n\n")[0].splitlines()
    return {line.split("  ")[0]: line.split("  ", 1)[1].split() for line in block}


def test_speed_prints_three_trainers_that_do_the_same_work():
    shown = run("benchmarks/speed.py", "--quick")
    assert shown.returncode == 0, shown.stderr
    assert "torch" in shown.stdout and "1 thread" in shown.stdout and f"measured: {ROOT / 'contextlm'}" in shown.stdout
    table = cells(shown.stdout, "trainer")
    assert list(table) == ["PyTorch", "plain", "ContextLM"]
    assert table["plain"][3] == "PyTorch" and table["ContextLM"][3] == "plain"
    for row in (table["plain"], table["ContextLM"]):
        rate, loss, ratio, _, interval, target = row[:6]
        low, high = map(float, interval.split(".."))
        assert float(rate.replace(",", "")) > 0 and low <= float(ratio) <= high and 0 < float(target) < 1
        assert loss == table["PyTorch"][1]  # the gate is still next to 0


def test_startup_prints_what_it_started():
    shown = run("benchmarks/startup.py", "--quick")
    assert shown.returncode == 0, shown.stderr
    (row,) = cells(shown.stdout, "start").values()
    assert len(row) == 4 and row[2] == "0.3" and row[3] in ("met", "missed")


@pytest.mark.full
def test_losses_in_8_bits_are_printed_beside_those_of_bf16():
    model = "--model gpt2-124m --num-layers 1 --hidden-size 64 --num-attention-heads 2 --seq-length 32".split()
    shown = run(
        "benchmarks/fp8_loss.py",
        "--text",
        "docs",
        *model,
        "--micro-batch-size",
        "1",
        "--train-iters",
        "4",
        "--last",
        "4",
    )
    assert shown.returncode == 0, shown.stderr
    table = cells(shown.stdout, "seed")
    assert list(table) == ["1234", "4321"]
    for bf16, fp8, difference in table.values():
        assert abs(float(fp8) - float(bf16) - float(difference)) < 2e-4 and abs(float(difference)) < 0.05


@pytest.mark.full
def test_checkpoints_prints_saves_beside_plain_writes():
    shown = run("-W", "ignore", "benchmarks/checkpoints.py", "--quick", "--rounds", "1")
    assert shown.returncode == 0, shown.stderr
    rows = cells(shown.stdout, "way")
    assert list(rows) == ["plain bytes", "torch.save", "save, waited for", "save in the background"]
    assert int(rows["save in the background"][-1]) > 0  # it trained on


@pytest.mark.full
def test_loader_prints_what_it_read_beside_what_is_needed():
    shown = run("-W", "ignore", "benchmarks/loader.py", "--quick")
    assert shown.returncode == 0, shown.stderr
    assert "needed: 537 samples/s of a rank, 537 of 1 ranks" in shown.stdout
    table = cells(shown.stdout, "tokens a document")
    assert list(table) == ["10", "100", "1,000", "10,000", "blend of 8 x 1,000"]
    for name, row in table.items():
        megatron, ours, ratio, *_ = (float(cell.replace(",", "")) if cell != "-" else None for cell in row)
        assert ours > 0 and (megatron is None) == (ratio is None) == name.startswith("blend")


def test_preprocessing_prints_ours_beside_the_library(load_benchmark, tmp_path):
    pytest.importorskip("gigatoken")
    words = [*ByteLevel.alphabet(), "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: token for token, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "some text"}) + "\n")
    files = ("--vocab-file", str(tmp_path / "vocab.json"), "--merge-file", str(tmp_path / "merges.txt"))
    shown = run("benchmarks/preprocessing.py", "--input", str(tmp_path / "c.jsonl"), *files, "--rounds", "1")
    table = cells(shown.stdout, "program")
    assert list(table) == ["library, tokenizing alone", "library, whole process", "ours", "ours, --help"], shown.stderr
    assert table["library, tokenizing alone"][-2:-1] == ["0.6"]
    sizes = [load_benchmark("preprocessing").megatron_target(size) for size in (20e6, 171e6)]
    assert sizes == [8, 10]


def test_imports_are_counted_by_package(load_benchmark):
    rows = {
        name: (seconds, modules) for name, seconds, modules in load_benchmark("startup").imports(("-c", "import json"))
    }
    assert int(rows["all"][1]) > int(rows["json"][1]) >= 3  # json, json.decoder, json.scanner, ...


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [((0.98, 0.90, 1.00), "met"), ((0.96, 0.90, 0.98), "within noise"), ((0.95, 0.94, 0.96), "missed")],
)
def test_only_what_is_below_the_target_beyond_noise_is_missed(load_benchmark, ratio, verdict):
    assert load_benchmark("rounds").Ratio(*ratio).verdict(0.97) == verdict


def test_a_missed_target_is_a_sentence_and_the_status(load_benchmark, monkeypatch):
    speed = load_benchmark("speed")
    seconds = {"PyTorch": [1.0] * 9, "plain": [1.0] * 9, "ContextLM": [2.0] * 9}
    made_up = contextlib.nullcontext({name: lambda: 5.0 for name in seconds})
    monkeypatch.setattr(speed, "trainers", lambda size: made_up)
    monkeypatch.setattr(speed, "seconds_by_round", lambda *_: seconds)
    with pytest.raises(
        SystemExit, match="^6x384: ContextLM has 0.500 of the speed of plain, at most 0.500; the target"
    ):
        speed.main(["--size", "6x384"])
    seconds["ContextLM"] = [1.05] * 9
    assert speed.main(["--size", "6x384"]) is None


def test_trainers_whose_losses_differ_are_not_compared(load_benchmark):
    with pytest.raises(SystemExit, match="do different work"):
        load_benchmark("speed").check_losses({"PyTorch": [5.0], "plain": [5.1], "ContextLM": [5.0]})


def test_the_interval_holds_the_median_as_often_as_it_says(load_benchmark):
    rounds, draw = load_benchmark("rounds"), random.Random(0)
    assert [rounds.interval_rank(count) for count in (1, 5, 6, 9, 15, 100)] == [0, 0, 0, 1, 3, 39]
    held = 0
    for _ in range(400):
        ratio = rounds.speed_ratio([draw.expovariate(1) for _ in range(15)], [1.0] * 15)
        held += ratio.low <= 1 / 0.6931 <= ratio.high
    assert 0.93 < held / 400 < 0.99  # 96.5%


def test_steps_take_turns(load_benchmark):
    order: list[str] = []
    steps = {name: functools.partial(order.append, name) for name in "abc"}
    seconds = load_benchmark("rounds").seconds_by_round(steps, 2, lambda: 10 ** len(order))
    assert "".join(order) == "abcabc"
    assert seconds["b"] == [10**2 - 10**1, 10**5 - 10**4]


def test_settings_that_measure_nothing_are_refused(load_benchmark):
    speed = load_benchmark("speed")
    found = speed.problems(speed.parser().parse_args(["--rounds", "0", "--threads", "2"]))
    assert [problem.split(":")[0] for problem in found] == ["--rounds 0", "--threads 2"]


def test_decoding_prints_each_case(load_benchmark, capsys):
    load_benchmark("decoding").main(["--quick"])
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith(("prompt", "decoding"))]
    assert [line.split("  ")[0] for line in lines] == [
        "prompt, batch 1",
        "decoding, equal lengths, batch 1",
        "decoding, equal lengths, batch 2",
        "decoding, unequal lengths, batch 2",
    ]
    assert "cache:" in shown and f"measured: {ROOT / 'contextlm'}" in shown
