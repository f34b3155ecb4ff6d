"""examples/slurm, docker, kubernetes and skypilot: that their files are what the engines take, and what they start.

Slurm's and Docker's commands are stand-ins; the launchers that they start are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.launcher_stand_ins import ROOT, bare_environment, called, install, launch, value

SBATCH, LAUNCHER = "examples/slurm/train.sbatch", "examples/pythia/1.4b.sh"
SAVED = json.dumps({"status": 75, "rank": 0, "cause": "SIGTERM: saved, to be continued"})
FAILED = json.dumps({"status": 1, "rank": 3, "cause": "out of memory"})
# What Slurm sets in a batch script of two nodes.
JOB = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_GPUS_ON_NODE": "4",
}  # fmt: skip


@pytest.fixture
def batch(tmp_path: Path) -> dict[str, str]:
    """Variables of a batch script, with stand-ins for srun, scontrol and torchrun."""
    return {**install(tmp_path, torchrun=True), **JOB}


def test_a_batch_job_starts_the_launcher_on_every_node(batch: dict[str, str], tmp_path: Path) -> None:
    ended = launch(SBATCH, LAUNCHER, "--log-interval", "50", **batch, RECORD="")
    assert ended.returncode == 0, ended.stderr
    for node in ("0", "1"):
        words = called(tmp_path, node)
        assert (value(words, "--nnodes"), value(words, "--nproc-per-node")) == ("2", "4")
        assert value(words, "--rdzv-endpoint") == "gpu07:20077"
        assert value(words, "--rdzv-conf").startswith(f"is_host={int(node == '0')}")
        assert value(words, "--model") == "contextlm-pythia-1.4b" and words[-2:] == ["--log-interval", "50"]
    assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240" in (tmp_path / "variables").read_text()


@pytest.mark.parametrize(
    ("record", "variables", "status", "requeued"),
    [
        (SAVED, {}, 0, True),
        (SAVED, {"SLURM_RESTART_COUNT": "99"}, 0, True),
        (SAVED, {"SLURM_RESTART_COUNT": "100"}, 75, False),
        (SAVED, {"SLURM_RESTART_COUNT": "2", "MAX_REQUEUES": "2"}, 75, False),
        (SAVED, {"REQUEUE_FAILS": "1"}, 75, True),
        (FAILED, {}, 1, False),
        ("", {}, 1, False),
    ],
)
def test_only_what_saved_is_queued_again_and_not_for_ever(
    batch: dict[str, str], tmp_path: Path, record: str, variables: dict[str, str], status: int, requeued: bool
) -> None:
    ended = launch(SBATCH, LAUNCHER, **batch, STATUS="1", RECORD=record, **variables)
    # Where nothing is on record the highest status counts, which may be that of the node that srun has ended.
    assert ended.returncode in ({status} if record else {status, 128 + signal.SIGTERM}), ended.stderr
    asked = tmp_path / "requeued"
    assert (asked.read_text().split() if asked.exists() else []) == (["77"] if requeued else [])
    if status == 75 and not requeued:
        assert "MAX_REQUEUES" in ended.stderr


@pytest.mark.parametrize(
    ("number", "status", "requeued"), [(signal.SIGUSR1, 0, True), (signal.SIGTERM, -signal.SIGTERM, False)]
)
def test_the_end_of_the_time_saves_and_a_cancelled_job_stays_cancelled(
    batch: dict[str, str], tmp_path: Path, number: int, status: int, requeued: bool
) -> None:
    """SIGUSR1 is what --signal sends before the time is over; scancel sends SIGTERM to this script and to the step."""
    job = subprocess.Popen(
        ["bash", str(ROOT / SBATCH), LAUNCHER],
        cwd=ROOT, env=bare_environment(**batch, WAITS=SAVED), stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not all((tmp_path / f"waits{node}").exists() for node in "01"):
        assert job.poll() is None
        time.sleep(0.02)
    if number == signal.SIGTERM:
        os.killpg(job.pid, number)  # the script and srun, which hands it on
    else:
        job.send_signal(number)
    assert job.wait(timeout=60) == status
    while not (tmp_path / "run" / "exit.json").exists():
        time.sleep(0.02)
    assert (tmp_path / "requeued").exists() == requeued


def test_sbatch_asks_slurm_for_what_the_script_counts_on() -> None:
    text = (ROOT / SBATCH).read_text()
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in text.splitlines() if "#SBATCH" in line
    )
    assert options["ntasks-per-node"] == "1" and "requeue" in options and options["open-mode"] == "append"
    where, _, seconds = options["signal"].partition("@")
    assert where == "B:USR1" and f"TIMEOUT:-{int(seconds) - 60}" in text


def test_slurm_starts_an_image(batch: dict[str, str], tmp_path: Path) -> None:
    apptainer = tmp_path / "bin" / "apptainer"
    apptainer.write_text(
        '#!/usr/bin/env bash\n[ "$1 $2 $3 $5" = "exec --nv --bind my.sif" ] || exit 9\nexec "${@:6}"\n'
    )
    apptainer.chmod(0o755)
    assert launch(SBATCH, LAUNCHER, **batch, IMAGE="my.sif").returncode == 0
    assert value(called(tmp_path, "1"), "--nnodes") == "2"


def test_docker_gets_gpus_memory_and_variables(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\n")
    docker.chmod(0o755)
    place = bare_environment(PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin", NNODES="2", SAVE="runs/my", VOLUMES="-v /a:/b")
    shown = subprocess.run(
        ["bash", str(ROOT / "examples/docker/run.sh"), "bash", LAUNCHER, "--dry-run"],
        cwd=tmp_path, env=place, capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = shown.stdout.split("\n")[:-1]
    assert words[0] == "run" and words[-4:] == ["contextlm", "bash", LAUNCHER, "--dry-run"]
    assert (value(words, "--gpus"), value(words, "--ipc"), value(words, "--network")) == ("all", "host", "host")
    assert {"memlock=-1", "stack=67108864", f"{tmp_path}/data:/opt/contextlm/data", "/a:/b"} <= set(words)
    assert [after for word, after in zip(words, words[1:], strict=False) if word == "--env"] == [
        "HOME=/tmp", "NNODES", "SAVE",
    ]  # fmt: skip


def test_every_variable_of_a_launcher_is_documented_and_reaches_the_image() -> None:
    launchers = [
        path for pattern in ("launch.sh", "gpt2/*.sh", "pythia/*.sh") for path in (ROOT / "examples").glob(pattern)
    ]
    read = {name for path in launchers for name in re.findall(r"\$\{([A-Z_]+):[-+]", path.read_text())}
    ours = {name for name in read if not name.startswith("SLURM_")}
    handed = set((ROOT / "examples/docker/run.sh").read_text().split("names=(")[1].split(")")[0].split())
    documented = set(re.findall("`([A-Z_]+)`", (ROOT / "docs/launching.md").read_text()))
    assert {"DATA_PATH", "TP", "LOCAL_ADDR"} <= ours
    assert sorted(ours - {"PYTHON"} - handed) == [] and sorted((ours | handed) - documented) == []


def described(command: list[str], **variables: str) -> str:
    """What the dry run of a command prints that starts in the checkout."""
    shown = subprocess.run(
        [*command, "--dry-run"], cwd=ROOT, env=bare_environment(**variables), capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_the_pods_of_a_kubernetes_job_find_each_other() -> None:
    service, job = yaml.safe_load_all((ROOT / "examples/kubernetes/job.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables: dict[str, Any] = {
        entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]
    }
    # A headless service whose name is the pods' subdomain gives each of them a name, before it is ready.
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"] and spec["completionMode"] == "Indexed"
    assert variables["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert (
        variables["NODE_RANK"]["fieldRef"]["fieldPath"]
        == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    )
    assert spec["completions"] == spec["parallelism"] == int(variables["NNODES"])
    # Preempted pods are replaced without end, others up to a limit: a policy wants Never.
    assert pod["restartPolicy"] == "Never" and spec["backoffLimit"] > 0
    exits = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [(rule["action"], rule["onExitCodes"]["values"]) for rule in exits] == [("Ignore", [75])]
    assert exits[0]["onExitCodes"]["containerName"] == container["name"]
    assert pod["terminationGracePeriodSeconds"] > int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(variables["GPUS_PER_NODE"])
    words = {name: text for name, text in variables.items() if isinstance(text, str)}
    shown = described([*container["command"], *container["args"]], **words, NODE_RANK="1")
    assert "Layout on 16 processes: TP 2 x PP 1 x DP 8" in shown and "log_interval: 50" in shown


def test_a_skypilot_node_gets_its_place(tmp_path: Path) -> None:
    task = yaml.safe_load((ROOT / "examples/skypilot/train.yaml").read_text())
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75] and task["num_nodes"] == 2
    assert set(task["volumes"]) == {"/shared"} and all(
        task["envs"][name].startswith("/shared/") for name in ("DATA_PATH", "SAVE")
    )
    place = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "4"}
    place["SKYPILOT_NODE_IPS"] = "10.0.0.7\n10.0.0.8"
    made = install(tmp_path, torchrun=True)
    # The environment of setup is not here; the rest of the run line is run as it stands.
    activate, run = task["run"].split("\n", 1)
    assert activate == "source .venv/bin/activate" and "make environment" in task["setup"]
    started = ["bash", "-c", run]
    variables = {**task["envs"], **place, "PYTHON": made["PYTHON"], "SAVE": made["SAVE"]}
    subprocess.run(started, cwd=ROOT, env=bare_environment(**variables), check=True, capture_output=True)
    words = called(tmp_path)
    assert (value(words, "--nnodes"), value(words, "--nproc-per-node")) == ("2", "4")
    assert value(words, "--rdzv-endpoint") == "10.0.0.7:29500" and value(words, "--local-addr") == "10.0.0.8"
    assert value(words, "--rdzv-conf").startswith("is_host=0")
    assert "Layout on 8 processes" in described(["bash", "-c", run.rstrip() + ' "$@"', "sky"], **variables)
