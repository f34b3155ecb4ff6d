"""The program: what it prints is what the formulas say, its page is what it prints, its mistakes are told at once."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contextlm.analysis.fitting import fits
from contextlm.analysis.memory import rank_memory
from contextlm.analysis.parameters import count_parameters
from contextlm.analysis.step_time import Machine
from contextlm.config import parse
from tools import plan

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "planning.md").read_text()
SHOWN = re.findall(r"```bash\n(.*?)```\n\n```text\n(.*?)\n```", PAGE, re.DOTALL)
TIED = "--model contextlm-gpt2-124m --bf16 --pipeline-model-parallel-size 2 --global-batch-size 8 --gpus 4"


def asked(line: str, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    status = plan.main(line.split())
    return status, capsys.readouterr().out


def record(line: str, capsys: pytest.CaptureFixture) -> Any:
    return json.loads(asked(f"{line} --json", capsys)[1])


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=range(len(SHOWN)))
def test_the_page_shows_what_it_prints(command: str, output: str, capsys: pytest.CaptureFixture) -> None:
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["python", "tools/plan.py"]
    assert plan.main(words[2:]) == 0
    assert capsys.readouterr().out.rstrip() == output


def test_the_page_shows_every_question() -> None:
    assert len(SHOWN) == PAGE.count("```bash") == 5


def test_numbers_for_programs(capsys: pytest.CaptureFixture) -> None:
    found = record(f"{TIED} --tokens 1e9 --mfu 50 --peak-tflops 100 --gpu-memory 1", capsys)
    config = parse(["--dry-run", *TIED.replace("--gpus", "--world-size").split()], {}).config
    assert found["parameters"]["total"] == count_parameters(config, 50257).total
    for stage, part in enumerate(found["stages"]):
        memory = rank_memory(config, 50257, stage, 4)
        assert part["memory"] == memory._asdict() | {"total": memory.total}
    # The tied table is on both stages, padded.
    weights = [part["memory"]["weights"] for part in found["stages"]]
    assert sum(weights) // 2 > found["parameters"]["total"] + 50257 * 768
    assert sum(found["shares_of_a_step"].values()) == pytest.approx(1)
    hours = 1e9 * found["flops_per_token"]["training"] / (4 * 50e12) / 3600
    assert found["cost"]["at_mfu"]["hours"] == pytest.approx(hours)
    assert found["fits"] is False and len(found["recompute"]) == 5


def test_the_vocabulary_is_that_of_a_given_tokenizer(capsys: pytest.CaptureFixture) -> None:
    line, tokenizer = "--model contextlm-gpt2-124m --bf16", "--tokenizer-type ByteTokenizer"
    assert record(f"{line} {tokenizer}", capsys) == record(f"{line} --vocab-size 257", capsys)
    largest = "--bf16 --largest-micro-batch --gpu-memory 24"
    assert record(f"{largest} {tokenizer}", capsys) == record(f"{largest} --vocab-size 257", capsys)


def test_a_small_run_does_not_cost_nothing(capsys: pytest.CaptureFixture) -> None:
    line = "--model contextlm-gpt2-124m --bf16 --global-batch-size 64 --gpus 8 --price-per-gpu-hour 2"
    for tokens in (1e5, 1e8, 4e9, 1e12):
        told = f"{line} --tokens {tokens:g}"
        spent = re.findall(r"MFU.*: (\S+) (hours|minutes).*, (\S+) GPU hours, price (\S+)\n", asked(told, capsys)[1])
        costs = record(told, capsys)["cost"]
        for words, cost in zip(spent, (costs["at_mfu"], costs["in_layout"]), strict=True):
            time, gpu_hours, price = (float(words[place].replace(",", "")) for place in (0, 2, 3))
            assert words[1] == ("hours" if cost["hours"] >= 1 else "minutes")
            assert time == pytest.approx(cost["hours"] * (1 if words[1] == "hours" else 60), rel=0.05)
            assert (gpu_hours, price) == pytest.approx((cost["gpu_hours"], cost["price"]), rel=0.01)


def test_fit_says_flags_and_why_the_naive_layout_fails(capsys: pytest.CaptureFixture) -> None:
    line = (
        "--model contextlm-gpt2-1.5b --bf16 --global-batch-size 40 --micro-batch-size 8 --gpus 8 --gpu-memory 24 --fit"
    )
    status, text = asked(line, capsys)
    assert status == 0
    naive, layouts = text.split("\n\n")
    assert "Data parallelism alone, micro-batch 8: 31.3 of 21.6" in naive and "GiB too many: weights 3.0" in naive
    assert "refused: --global-batch-size 40: no multiple of --micro-batch-size 8 x 8 data-parallel ranks" in naive
    config = parse(["--dry-run", "--model", "contextlm-gpt2-1.5b", "--bf16", "--global-batch-size", "40"], {}).config
    expected = fits(config, 50257, 8, Machine(989.0, 0.4), 24 * 2**30)
    assert len(expected) > 1 and layouts.count(" s a step") == len(expected)
    assert [" ".join(fit["flags"]) in layouts for fit in record(line, capsys)["fits"]] == [True] * len(expected)


def test_where_nothing_fits_it_says_so(capsys: pytest.CaptureFixture) -> None:
    line = "--model contextlm-gpt2-1.5b --bf16 --global-batch-size 8 --gpus 1 --gpu-memory 24 --fit --tokens 1e9"
    status, text = asked(line, capsys)
    assert status == 1 and "No layout fits" in text


def test_the_largest_micro_batch_fits_and_one_more_sample_does_not(capsys: pytest.CaptureFixture) -> None:
    line = "--model contextlm-gpt2-355m --bf16"
    found = record(f"{line} --largest-micro-batch --gpu-memory 24 --global-batch-size 512", capsys)[
        "contextlm-gpt2-355m"
    ]
    full = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    assert list(found) == ["nothing", "every layer"] and 0 < found["nothing"] < found["every layer"]
    for samples, more in zip(found.values(), ("", full), strict=True):
        for size, fits_it in ((samples, True), (samples + 1, False)):
            sized = f"{line} --micro-batch-size {size} {more} --gpu-memory 24"
            assert record(sized, capsys)["fits"] is fits_it
    status, text = asked("--model gpt2-1.5b --largest-micro-batch --gpu-memory 1", capsys)
    assert status == 1 and text.split()[-2:] == ["0", "0"]


def test_it_says_what_is_compiled(capsys: pytest.CaptureFixture) -> None:
    line = "--model gpt2-124m --bf16 --gpus"
    assert "on GPUs with the model compiled as one graph (--compile auto)" in asked(f"{line} 1", capsys)[1]
    found = record(f"{line} 2 --tensor-model-parallel-size 2", capsys)
    assert found["compiled"] == "off" and {choice["compiled"] for choice in found["recompute"]} == {"off"}
    found = record(f"{line} 1 --compile model", capsys)
    assert found["compiled"] == "model"
    assert [choice["compiled"] for choice in found["recompute"]] == ["model", "off", "off", "layer", "layer"]


@pytest.mark.parametrize("budget", ["params", "flops"])
def test_the_matched_model_is_the_one_of_its_flags(budget: str, capsys: pytest.CaptureFixture) -> None:
    model = "--model contextlm-pythia-160m --context-encoder-layers 11"
    found = record(f"{model} --match {budget} --by mlp", capsys)
    words = [word for flag in found["flags"] for word in flag.split()]
    config = parse(["--dry-run", *model.split(), *words], {}).config
    assert found["parameters"] == count_parameters(config, config.model.vocab_size).total
    assert (
        found["difference"] == pytest.approx(found["reached"] / found["wanted"] - 1) and abs(found["difference"]) < 1e-3
    )


def test_all_mistakes_are_told_at_once(capsys: pytest.CaptureFixture) -> None:
    def told(line: str) -> str:
        with pytest.raises(SystemExit) as ended:
            plan.main(line.split())
        assert ended.value.code == 1
        return capsys.readouterr().err

    found = told("--model gpt2-124m --gpu Abacus --mfu 140 --tokens 0 --price-per-gpu-hour nan --fit --match params")
    for sentence in (
        "--tokens 0: give a number above 0",
        "--mfu 140: is a percentage",
        "--gpu Abacus: not known; give --peak-tflops",
        "--fit and --match: ask one question at a time",
        "--price-per-gpu-hour nan: give a number above 0",
        "--match: the model is plain itself",
    ):
        assert sentence in found
    found = told("--model gpt2-tiny --fit --bf16")
    for flag in ("--vocab-size", "--global-batch-size", "--gpus", "--gpu-memory"):
        assert f"{flag}: missing" in found
    assert "--gpu-memory: missing; --largest-micro-batch asks" in told("--bf16 --largest-micro-batch")
    assert "--world-size: is --gpus here" in told("--model gpt2-124m --world-size=4")
    found = told("--model gpt2-124m --num-layer 3 --gpus 0")
    assert "did you mean --num-layers?" in found and "--gpus 0: give a number above 0" in found


def test_neither_torch_nor_megatron_is_imported() -> None:
    code = "import sys; from tools import plan; plan.main(sys.argv[1:]); print([m for m in sys.modules if m in BAD])"
    code = code.replace("BAD", "('torch', 'megatron', 'numpy', 'transformers')")
    line = f"{TIED} --gpu-memory 80 --fit"
    ran = subprocess.run([sys.executable, "-c", code, *line.split()], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr
