"""The launchers in examples/: what they would run, how they start it on one or many nodes, how they end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.launcher_stand_ins import ROOT, bare_environment, called, install, launch, value

GPT2, PYTHIA = "examples/gpt2/1.5b.sh", "examples/pythia/1.4b.sh"
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*") if path.suffix in (".sh", ".sbatch")
)
# Launcher -> its preset without the head, its layout on the 8 GPUs that it names.
DOCUMENTED = {
    **{f"examples/gpt2/{size}.sh": (f"gpt2-{size}", "TP 1 x PP 1 x DP 8") for size in ("124m", "355m", "774m")},
    GPT2: ("gpt2-1.5b", "TP 1 x PP 2 x DP 4"),
    **{
        f"examples/pythia/{size}.sh": (f"pythia-{size}", "TP 1 x PP 1 x DP 8") for size in ("70m", "160m", "410m", "1b")
    },
    PYTHIA: ("pythia-1.4b", "TP 2 x PP 1 x DP 4, sequence parallel"),
}


@pytest.fixture
def training(tmp_path: Path) -> dict[str, str]:
    """Variables under which a launcher "trains" with a stand-in for torchrun."""
    return install(tmp_path, torchrun=True)


def described(script: str, **variables: str) -> str:
    """What a dry run of a launcher prints."""
    shown = launch(script, "--dry-run", **variables)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_every_size_has_its_launcher() -> None:
    from contextlm.config.presets import preset_names

    sizes = {name for name in preset_names() if not name.startswith("contextlm") and not name.endswith("tiny")}
    assert {preset for preset, _ in DOCUMENTED.values()} == sizes
    families = [path for path in SCRIPTS if path.startswith(("examples/gpt2", "examples/pythia"))]
    assert sorted(DOCUMENTED) == families


@pytest.mark.parametrize("script", DOCUMENTED)
def test_dry_runs_on_the_documented_gpus(script: str) -> None:
    """ContextLM and its baseline: the method's settings, 0.5M and 2.1M tokens a step, 300B in all."""
    preset, layout = DOCUMENTED[script]
    tokens, steps = (524_288, 572_000) if preset.startswith("gpt2") else (2_097_152, 143_000)
    assert "for 8 GPUs or a multiple" in (ROOT / script).read_text()
    ours, plain = (described(script, BASELINE=baseline) for baseline in ("0", "1"))
    for text in (
        f"Layout on 8 processes: {layout}\n", f"; {tokens:,} tokens\n", f"train_iters: {steps},", "bf16: true",
        "lr_warmup_fraction: 0.01", "Nothing was started.",
    ):  # fmt: skip
        assert text in ours and text in plain, text
    assert f"preset: contextlm-{preset}\n" in ours and f"preset: {preset}\n" in plain
    assert "the context head before" in ours and "context_chunk_size: 0" in plain
    # The baseline differs in the head only.
    before, after = (
        {
            line
            for line in text.split("Configuration")[1].splitlines()
            if "context" not in line and "preset:" not in line
        }
        for text in (ours, plain)
    )
    assert before == after


@pytest.mark.parametrize(
    ("script", "variables", "processes", "layout"),
    [
        (GPT2, {"NNODES": "4", "PP": "4"}, 32, "TP 1 x PP 4 x DP 8"),
        (PYTHIA, {"SLURM_STEP_NUM_NODES": "2"}, 16, "TP 2 x PP 1 x DP 8"),
        (PYTHIA, {"GPUS_PER_NODE": "4"}, 4, "TP 2 x PP 1 x DP 2"),
        (PYTHIA, {"SLURM_GPUS_ON_NODE": "4", "TP": "4"}, 4, "TP 4 x PP 1 x DP 1"),
    ],
)
def test_places_and_layouts_are_variables(script: str, variables: dict[str, str], processes: int, layout: str) -> None:
    assert f"Layout on {processes} processes: {layout}" in described(script, **variables)


def test_no_launcher_repeats_its_preset() -> None:
    """What a preset sets is in no launcher and in no file that it shares with its family."""
    from contextlm.config.presets import preset

    for script, (name, _) in DOCUMENTED.items():
        text = (ROOT / script).read_text() + (ROOT / script).with_name("pretraining.yaml").read_text()
        settings = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
        for field in (name for section in preset(f"contextlm-{name}").values() for name in section):
            assert f"--{field.replace('_', '-')} " not in settings and f" {field}:" not in settings, (script, field)


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "complaint"),
    [
        (GPT2, ("--dry-run", "--tensor-model-parallel-size", "2"), {}, "--tensor-model-parallel-size 2"),
        (GPT2, ("--dry-run",), {"GPUS_PER_NODE": "7"}, "--pipeline-model-parallel-size 2"),
        (GPT2, ("--dry-run", "--micro-batch-size", "8"), {}, "--micro-batch-size: given twice"),
        (PYTHIA, ("--dry-run",), {"TP": "3"}, "--tensor-model-parallel-size 3"),
        (GPT2, ("--dry-run",), {"SLURM_NNODES": "2"}, "srun --ntasks-per-node 1"),
        (
            GPT2,
            ("--dry-run",),
            {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"},
            "8(x2) tasks per node",
        ),
        (GPT2, (), {"SAVE": "x", "DATA_PATH": "y"}, "TOKENIZER_MODEL: not set"),
        (GPT2, (), {"SAVE": "x", "TOKENIZER_MODEL": "y"}, "DATA_PATH: not set"),
        (GPT2, (), {"DATA_PATH": "x", "TOKENIZER_MODEL": "y"}, "SAVE: not set"),
    ],
)
def test_what_cannot_run_is_refused(
    script: str, arguments: tuple[str, ...], variables: dict[str, str], complaint: str
) -> None:
    refused = launch(script, *arguments, **variables)
    assert refused.returncode == 1
    assert complaint in refused.stderr


def test_one_node_meets_on_its_own_loopback(training: dict[str, str], tmp_path: Path) -> None:
    assert launch(GPT2, "--log-interval", "5", **training).returncode == 0
    words = called(tmp_path)
    assert words[:2] == ["-m", "torch.distributed.run"]
    assert (value(words, "--nnodes"), value(words, "--nproc-per-node")) == ("1", "8")
    assert value(words, "--rdzv-endpoint") == "127.0.0.1:0"
    where = words.index("--data-path")
    assert words[where + 1 : where + 5] == ["0.7", "a_text_document", "0.3", "b_text_document"]
    assert value(words, "--save") == value(words, "--load") == value(words, "--output-dir") == training["SAVE"]
    assert words[-2:] == ["--log-interval", "5"] and value(words, "--max-restarts") == "0"


def test_data_and_tokenizer_may_come_otherwise(training: dict[str, str], tmp_path: Path) -> None:
    without = {**training, "DATA_PATH": "", "TOKENIZER_MODEL": "", "TOKENIZER_TYPE": "ByteTokenizer"}
    assert launch(GPT2, "--data-config", "blend.yaml", **without, MAX_RESTARTS="2").returncode == 0
    words = called(tmp_path)
    assert not {"--data-path", "--tokenizer-model"} & set(words)
    assert value(words, "--tokenizer-type") == "ByteTokenizer" and value(words, "--max-restarts") == "2"


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("place", ["variables", "srun"])
def test_every_node_knows_its_place(training: dict[str, str], tmp_path: Path, place: str, rank: str) -> None:
    variables = {
        "variables": {"NNODES": "2", "NODE_RANK": rank, "MASTER_ADDR": "gpu07", "LOCAL_ADDR": "10.0.0.7"},
        "srun": {
            "SLURM_STEP_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_NODEID": rank, "SLURM_JOB_ID": "77",
            "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        },
    }[place]  # fmt: skip
    assert launch(PYTHIA, **training, **variables).returncode == 0
    words = called(tmp_path, rank if place == "srun" else "")
    assert value(words, "--nnodes") == "2"
    assert ("--local-addr" in words) == (place == "variables")
    assert value(words, "--rdzv-endpoint") == "gpu07:29500"
    assert value(words, "--rdzv-conf").split(",")[0] == f"is_host={int(rank == '0')}"


@pytest.mark.parametrize(
    ("torchrun", "record", "expected"),
    [
        (0, {"status": 0, "rank": 0, "cause": None}, 0),
        (1, {"status": 75, "rank": 3, "cause": "preempted"}, 75),
        (1, {"status": 1, "rank": 2, "cause": "out of memory"}, 1),
        (1, {"status": 1, "rank": 2, "cause": "out of memory", "remedy": "try less"}, 1),
        (1, {"status": 0, "rank": 0, "cause": None}, 1),  # torchrun itself failed
        (1, None, 1),
    ],
)
def test_status_and_cause_are_the_recorded_ones(
    training: dict[str, str], torchrun: int, record: dict[str, object] | None, expected: int
) -> None:
    # How an earlier job ended must not be taken for this one's.
    (Path(training["SAVE"]) / "exit.json").write_text('{"status": 99, "rank": 0, "cause": "earlier"}')
    ended = launch(GPT2, **training, STATUS=str(torchrun), RECORD="" if record is None else json.dumps(record))
    assert ended.returncode == expected
    if expected and record is not None:
        told = [f"rank {record['rank']}: {record['cause']}", *(["      try less"] if "remedy" in record else [])]
        assert ended.stderr.splitlines()[-len(told) :] == told
    if record is None:
        assert "before any rank told why" in ended.stderr.splitlines()[-1]


def test_who_only_evaluates_leaves_the_record_alone(training: dict[str, str]) -> None:
    record = Path(training["SAVE"]) / "exit.json"
    record.write_text('{"status": 75, "rank": 0, "cause": "SIGTERM"}')
    ended = launch(GPT2, "--skip-train", **training, STATUS="1", RECORD="")
    assert ended.returncode == 1 and json.loads(record.read_text())["status"] == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_reaches_the_ranks_and_their_status_comes_back(training: dict[str, str], number: int) -> None:
    saved = json.dumps({"status": 75, "rank": 0, "cause": "SIGTERM: saved, to be continued"})
    launcher = subprocess.Popen(
        ["bash", str(ROOT / GPT2)],
        env=bare_environment(**training, WAITS=saved),
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background Ctrl-C is ignored, and what is ignored is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (Path(training["SAVE"]).parent / "waits").exists():
        assert launcher.poll() is None
        time.sleep(0.02)
    launcher.send_signal(number)
    _, told = launcher.communicate(timeout=60)
    assert launcher.returncode == 75 and told.splitlines()[-1] == "rank 0: SIGTERM: saved, to be continued"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash_that_stops_at_errors(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    assert "set -euo pipefail" in (ROOT / script).read_text()
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(ROOT / script)], check=True)
