"""A launcher with --laptop: the same launch on this CPU, and what becomes of the run that it stands for."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path

import pytest

from contextlm.config.resolve import parse
from contextlm.config.schema import Config
from contextlm.config.validation import validate
from tests.cli.launcher_stand_ins import ROOT, launch
from tests.cli.programs import metrics
from tests.cli.test_launchers import DOCUMENTED, GPT2, PYTHIA

sys.path.insert(0, str(ROOT / "examples" / "laptop"))
try:
    from twin import STEPS, STEPS_BEFORE_STOP, layout_words, twin_of
finally:
    sys.path.pop(0)


def run_twin(script: str, folder: Path, *arguments: str, **variables: str) -> str:
    """Run a launcher's twin under `folder`; what it printed."""
    ended = launch(script, "--laptop", *arguments, LAPTOP_DIR=str(folder), **variables)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def saved_layouts(folder: Path) -> list[str]:
    """Under which layouts the twin saved, before the stop and at the end."""
    steps = (STEPS_BEFORE_STOP, STEPS)
    return [json.loads((folder / "run" / f"iter_{step:07d}" / "run.json").read_text())["layout"] for step in steps]


@pytest.mark.parametrize(
    ("script", "layout", "size"),
    [
        (GPT2, "TP 1 x PP 2 x DP 1", "48 layers of 1600 became 4 of 200"),
        (PYTHIA, "TP 2 x PP 1 x DP 1", "24 layers of 2048 became 2 of 128"),
    ],
)
def test_two_launchers_on_two_processes(script: str, layout: str, size: str, tmp_path: Path) -> None:
    shown = run_twin(script, tmp_path, GPUS_PER_NODE="2")
    before, after = saved_layouts(tmp_path)
    assert before.startswith(layout) and after.startswith("TP 1 x PP 1 x DP 1")
    made = metrics(tmp_path / "run")
    assert [line["iteration"] for line in made if "split" not in line] == list(range(1, STEPS + 1))
    assert "lm_loss" in shown.split("[4/4] evaluate")[1].split("Passed")[0]
    told = shown.split("Not tested:\n")[1]
    assert "NCCL" in told and size in told and "the layout" not in told


@pytest.mark.full
@pytest.mark.parametrize("script", DOCUMENTED)
def test_every_launcher_in_its_documented_layout(script: str, tmp_path: Path) -> None:
    """All nine as they stand, 8 processes each."""
    shown = run_twin(script, tmp_path)
    assert saved_layouts(tmp_path)[0].startswith(DOCUMENTED[script][1].split(",")[0])
    assert json.loads((tmp_path / "run" / f"iter_{STEPS:07d}" / "run.json").read_text())["iteration"] == STEPS
    assert "the layout" not in shown.split("Not tested:\n")[1]


def test_a_dry_run_shows_the_commands_only(tmp_path: Path) -> None:
    shown = run_twin(PYTHIA, tmp_path / "twin", "--dry-run", BASELINE="1", NNODES="4")
    assert "GPUS_PER_NODE=8" in shown and "--exit-interval 3" in shown and "tools/evaluate.py" in shown
    assert "Passed" not in shown and not (tmp_path / "twin").exists()


def test_mistakes_are_those_of_the_run() -> None:
    refused = launch(GPT2, "--laptop", PP="7")
    assert refused.returncode == 1 and "--pipeline-model-parallel-size 7" in refused.stderr


@pytest.mark.parametrize(
    ("losses", "layouts", "complaint"),
    [
        ([1.0] * STEPS, ("TP 1 x PP 2 x DP 4", "TP 1 x PP 1 x DP 2"), None),
        ([1.0] * (STEPS - 1), ("TP 1 x PP 2 x DP 4", "TP 1 x PP 1 x DP 2"), "losses by step"),
        ([1.0] * (STEPS - 1) + [float("nan")], ("TP 1 x PP 2 x DP 4", "TP 1 x PP 1 x DP 2"), "losses by step"),
        ([1.0] * STEPS, ("TP 1 x PP 2 x DP 4", "TP 1 x PP 2 x DP 4"), "checkpoints were saved as"),
    ],
)
def test_a_twin_that_did_not_do_all_has_not_passed(
    losses: list[float], layouts: tuple[str, str], complaint: str | None, tmp_path: Path
) -> None:
    program = spec_from_file_location("laptop", ROOT / "examples" / "laptop" / "rehearse.py")
    assert program is not None and program.loader is not None
    program.loader.exec_module(laptop := module_from_spec(program))
    lines = [json.dumps({"iteration": step, "lm_loss": loss}) + "\n" for step, loss in enumerate(losses, 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    for step, layout in zip((STEPS_BEFORE_STOP, STEPS), layouts, strict=True):
        (tmp_path / f"iter_{step:07d}").mkdir()
        (tmp_path / f"iter_{step:07d}" / "run.json").write_text(json.dumps({"layout": layout}))
    twin = twin_of(configured("--model", "gpt2-124m", "--pipeline-model-parallel-size", "2", processes=8), 8)
    with nullcontext() if complaint is None else pytest.raises(SystemExit, match=complaint):
        laptop.check(twin, tmp_path)


def configured(*words: str, processes: int) -> Config:
    return parse(["--dry-run", "--world-size", str(processes), *words], {}).config


LAYOUTS = [
    (),
    ("--pipeline-model-parallel-size", "2"),
    ("--tensor-model-parallel-size", "2", "--sequence-parallel"),
    ("--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size", "4"),
    ("--tensor-model-parallel-size", "4", "--pipeline-model-parallel-size", "6"),
    ("--pipeline-model-parallel-size", "2", "--num-layers-per-virtual-pipeline-stage", "3"),
    ("--pipeline-model-parallel-size", "2", "--num-virtual-stages-per-pipeline-rank", "3"),
    ("--pipeline-model-parallel-size", "3", "--decoder-first-pipeline-num-layers", "3",
     "--decoder-last-pipeline-num-layers", "3"),
]  # fmt: skip
OPTIONS = [
    ("--train-iters", "1000", "--lr-warmup-iters", "100", "--lr-decay-iters", "900", "--bf16"),
    ("--train-iters", "1000", "--lr-decay-style", "WSD", "--lr-wsd-decay-iters", "100", "--lr-warmup-fraction", "0.1"),
    ("--train-samples", "100000", "--lr-warmup-samples", "1000", "--rampup-batch-size", "96", "96", "9600", "--fp16"),
    ("--context-encoder-layers", "9", "--recompute-granularity", "full", "--recompute-method", "block",
     "--recompute-num-layers", "2", "--wandb-project", "mine"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "options"), list(product(LAYOUTS, OPTIONS)))
def test_the_twin_of_any_run_is_a_run(layout: tuple[str, ...], options: tuple[str, ...]) -> None:
    """On up to 8 processes, in the layout that was asked for as far as that goes; and in the one it resumes under."""
    processes = 96
    original = configured(
        "--model", "contextlm-gpt2-124m", "--global-batch-size", "1920", *layout, *options, processes=processes
    )
    twin = twin_of(original, processes)
    assert twin.processes <= 8 and twin.resumed_processes <= 2
    assert layout_words(twin.config, twin.processes) != layout_words(twin.resumed, twin.resumed_processes)
    for config, count in ((twin.config, twin.processes), (twin.resumed, twin.resumed_processes)):
        assert validate(config, count, dry_run=True) == []
    parallel, wanted = twin.config.parallel, original.parallel
    if wanted.model_parallel_size <= 8:
        assert parallel.model_parallel_size == wanted.model_parallel_size
        assert twin.config.num_model_chunks == original.num_model_chunks
    assert twin.config.model.num_attention_heads == 12 and twin.config.precision == original.precision
    told = "\n".join(twin.untested)
    assert "the layout" in told  # 96 became 8 at most
    assert ("--wandb-project" in told) == ("--wandb-project" in options) and "--micro-batch-size" not in told


def test_heads_of_the_twin_refuse_what_those_of_the_model_refuse() -> None:
    """25 heads stay 25: a layout that GPT-2 XL cannot have is none for its twin."""
    from dataclasses import replace

    config = twin_of(configured("--model", "contextlm-gpt2-1.5b", processes=8), 8).config
    split = replace(config, parallel=replace(config.parallel, tensor_model_parallel_size=2))
    assert any("--num-attention-heads 25" in problem for problem in validate(split, 8, dry_run=True))
