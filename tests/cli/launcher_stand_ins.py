"""Starts the launchers of examples/, with stand-ins for torchrun and for Slurm's commands.

The stand-ins do what the programs are documented to do, as far as the launchers depend on it: `srun` starts the task on
each node, hands signals on to every process of the step and ends with the highest status.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.programs import environment

ROOT = Path(__file__).resolve().parents[2]
# What decides where a launcher runs, and must not come from the machine that tests it.
DECIDING = (
    "SLURM_", "NNODES", "NODE_RANK", "MASTER_", "LOCAL_ADDR", "GPUS_PER_NODE", "BASELINE", "SAVE", "DATA_PATH", "TP",
    "PP", "CONFIG", "TOKENIZER_", "OUTPUT_DIR", "MAX_RE", "IMAGE",
)  # fmt: skip

# In place of Python: notes how torchrun was called, and ends as the test says.
PYTHON = """#!/usr/bin/env bash
if [ "$1" != -m ]; then exec "{python}" "$@"; fi
printf '%s\\n' "$@" >"{folder}/called${{SLURM_NODEID:-}}"
env >"{folder}/variables"
# As torchrun, it goes on when all nodes are there: one that ended before would have the others killed at their start.
for node in $(seq 0 $((${{STARTED_NODES:-0}} - 1))); do
    until [ -e "{folder}/called$node" ]; do sleep 0.02; done
done
if [ -n "${{RECORD:-}}" ]; then echo "$RECORD" >"{folder}/run/exit.json"; fi
if [ -n "${{WAITS:-}}" ]; then
    trap 'echo "$WAITS" >"{folder}/run/exit.json"; exit 1' TERM
    touch "{folder}/waits${{SLURM_NODEID:-}}"
    for _ in $(seq 600); do sleep 0.1; done
fi
exit "${{STATUS:-0}}"
"""
SCONTROL = """#!/usr/bin/env bash
case "$*" in
    'show hostnames gpu[07-08]') printf 'gpu07\\ngpu08\\n' ;;
    'show hostnames localhost,localhost') printf 'localhost\\nlocalhost\\n' ;;
    'requeue '*) echo "$2" >>"{folder}/requeued"; exit "${{REQUEUE_FAILS:-0}}" ;;
    *) exit 1 ;;
esac
"""
SRUN = """#!{python}
import os, signal, subprocess, sys, time
import psutil

assert "--ntasks-per-node=1" in sys.argv
command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
step = {{name.replace("JOB_", "STEP_"): value for name, value in os.environ.items() if name.startswith("SLURM_JOB_N")}}
step |= {{"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "STARTED_NODES": os.environ["SLURM_JOB_NUM_NODES"]}}
tasks = [
    subprocess.Popen(command, env={{**os.environ, **step, "SLURM_NODEID": str(node)}}, start_new_session=True)
    for node in range(int(os.environ["SLURM_JOB_NUM_NODES"]))
]

def hand_on(number, frame=None):
    sessions = {{task.pid for task in tasks}}
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions:
                os.kill(process.pid, number)
        except OSError:
            pass

for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, hand_on)
killed_at = None
while any(task.poll() is None for task in tasks):
    if any(task.returncode for task in tasks) and killed_at is None:  # --kill-on-bad-exit, KillWait
        killed_at = time.monotonic() + 30
        hand_on(signal.SIGTERM)
    if killed_at is not None and time.monotonic() > killed_at:
        hand_on(signal.SIGKILL)
    time.sleep(0.02)
sys.exit(max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks))
"""


def install(folder: Path, *, torchrun: bool) -> dict[str, str]:
    """Variables under which a launcher trains with stand-ins, torchrun's among them or not; `folder` holds all."""
    (folder / "bin").mkdir()
    (folder / "run").mkdir()
    programs = {"scontrol": SCONTROL, "srun": SRUN, **({"python": PYTHON} if torchrun else {})}
    for name, text in programs.items():
        path = folder / "bin" / name
        path.write_text(text.format(python=sys.executable, folder=folder))
        path.chmod(0o755)
    return {
        "PYTHON": str(folder / "bin" / "python") if torchrun else sys.executable,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "DATA_PATH": "0.7 a_text_document 0.3 b_text_document",
        "TOKENIZER_MODEL": "tokenizer.json",
        "SAVE": str(folder / "run"),
    }


def bare_environment(**variables: str) -> dict[str, str]:
    """An environment that says nothing but `variables` about nodes and data."""
    ours = {name: value for name, value in environment().items() if not name.startswith(DECIDING)}
    return {**ours, "PYTHON": sys.executable, **variables}


def launch(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a launcher to its end."""
    command, place = ["bash", str(ROOT / script), *arguments], bare_environment(**variables)
    return subprocess.run(command, cwd=ROOT, env=place, capture_output=True, text=True, timeout=600)


def called(folder: Path, node: str = "") -> list[str]:
    """The words with which torchrun's stand-in was called on a node."""
    return (folder / f"called{node}").read_text().splitlines()


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]
