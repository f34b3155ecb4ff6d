"""The launchers in examples/: what they would run, how they start it on one or many nodes, how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GPT2, PYTHIA = "examples/gpt2/1.5b.sh", "examples/pythia/1.4b.sh"
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.sh"))
DECIDING = ("SLURM_", "NNODES", "NODE_RANK", "MASTER_", "GPUS_PER_NODE", "MODEL", "BASELINE", "SAVE", "DATA_PATH")

# In place of Python: notes how torchrun was called, and ends as the test says.
FAKE_PYTHON = """#!/usr/bin/env bash
if [ "$1" != -m ]; then exec "{python}" "$@"; fi
printf '%s\\n' "$@" >"{folder}/called"
if [ -n "${{RECORD:-}}" ]; then echo "$RECORD" >"{folder}/run/exit.json"; fi
if [ -n "${{WAITS:-}}" ]; then
    trap 'echo "$WAITS" >"{folder}/run/exit.json"; exit 1' TERM
    touch "{folder}/waits"
    for _ in $(seq 600); do sleep 0.1; done
fi
exit "${{STATUS:-0}}"
"""
FAKE_SCONTROL = "#!/usr/bin/env bash\n[ \"$*\" = 'show hostnames gpu[07-08]' ] && printf 'gpu07\\ngpu08\\n'\n"


def launch(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a launcher in an environment that says nothing but `variables` about nodes and data."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(DECIDING)}
    return subprocess.run(
        ["bash", str(ROOT / script), *arguments],
        env={**environment, "PYTHON": sys.executable, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def training(tmp_path: Path) -> dict[str, str]:
    """Variables under which a launcher "trains" with a fake torchrun."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").mkdir()
    programs = {"python": FAKE_PYTHON.format(python=sys.executable, folder=tmp_path), "scontrol": FAKE_SCONTROL}
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return {
        "PYTHON": str(tmp_path / "bin" / "python"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "DATA_PATH": "0.7 a_text_document 0.3 b_text_document",
        "TOKENIZER_MODEL": "tokenizer.json",
        "SAVE": str(tmp_path / "run"),
    }


def called(training: dict[str, str]) -> list[str]:
    """The words with which torchrun was called."""
    return (Path(training["SAVE"]).parent / "called").read_text().splitlines()


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


@pytest.mark.parametrize(
    ("script", "variables", "preset", "processes", "layout"),
    [
        (GPT2, {}, "contextlm-gpt2-1.5b", 8, "TP 1 x PP 2 x DP 4"),
        (GPT2, {"BASELINE": "1"}, "gpt2-1.5b", 8, "TP 1 x PP 2 x DP 4"),
        (GPT2, {"NNODES": "4", "PP": "4"}, "contextlm-gpt2-1.5b", 32, "TP 1 x PP 4 x DP 8"),
        (PYTHIA, {}, "contextlm-pythia-1.4b", 8, "TP 2 x PP 1 x DP 4"),
        (PYTHIA, {"BASELINE": "1"}, "pythia-1.4b", 8, "TP 2 x PP 1 x DP 4"),
        (PYTHIA, {"SLURM_STEP_NUM_NODES": "2"}, "contextlm-pythia-1.4b", 16, "TP 2 x PP 1 x DP 8"),
        (PYTHIA, {"MODEL": "pythia-70m", "GPUS_PER_NODE": "4"}, "pythia-70m", 4, "TP 2 x PP 1 x DP 2"),
    ],
)
def test_dry_run_describes_the_job_without_data(
    script: str, variables: dict[str, str], preset: str, processes: int, layout: str
) -> None:
    shown = launch(script, "--dry-run", **variables)
    assert shown.returncode == 0, shown.stderr
    for text in (
        f"preset: {preset}\n",
        f"Layout on {processes} processes: {layout}",
        "bf16: true",
        "Nothing was started.",
    ):
        assert text in shown.stdout
    assert ("the context head before" in shown.stdout) == preset.startswith("contextlm")


def test_the_baseline_differs_in_the_head_only() -> None:
    for script in (GPT2, PYTHIA):
        ours, plain = (launch(script, "--dry-run", BASELINE=x).stdout.splitlines() for x in ("0", "1"))
        sections = ("  model:", "  parallel:", "  training:", "  optimizer:", "  data:")
        for section in sections:
            index = next(i for i, line in enumerate(ours) if line.startswith(section))
            assert ours[index] in plain


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
    ],
)
def test_what_cannot_run_is_refused(
    script: str, arguments: tuple[str, ...], variables: dict[str, str], complaint: str
) -> None:
    refused = launch(script, *arguments, **variables)
    assert refused.returncode == 1
    assert complaint in refused.stderr


def test_one_node_meets_on_its_own_loopback(training: dict[str, str]) -> None:
    assert launch(GPT2, "--log-interval", "5", **training).returncode == 0
    words = called(training)
    assert words[:2] == ["-m", "torch.distributed.run"]
    assert (value(words, "--nnodes"), value(words, "--nproc-per-node")) == ("1", "8")
    assert value(words, "--rdzv-endpoint") == "127.0.0.1:0"
    where = words.index("--data-path")
    assert words[where + 1 : where + 5] == ["0.7", "a_text_document", "0.3", "b_text_document"]
    assert value(words, "--save") == value(words, "--load") == value(words, "--output-dir") == training["SAVE"]
    assert words[-2:] == ["--log-interval", "5"]


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("place", ["variables", "srun"])
def test_every_node_knows_its_place(training: dict[str, str], place: str, rank: str) -> None:
    variables = {
        "variables": {"NNODES": "2", "NODE_RANK": rank, "MASTER_ADDR": "gpu07"},
        "srun": {
            "SLURM_STEP_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_NODEID": rank, "SLURM_JOB_ID": "77",
            "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        },
    }[place]  # fmt: skip
    assert launch(PYTHIA, **training, **variables).returncode == 0
    words = called(training)
    assert value(words, "--nnodes") == "2"
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
        env={**os.environ, **training, "WAITS": saved},
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
