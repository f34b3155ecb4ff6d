"""A launcher on two hosts, really trained: they meet, train, and one that is told to go takes both along.

The hosts are two network namespaces joined by a cable, each with an address of its own and nothing else in common;
where those are not allowed, two addresses of this machine. And a batch job of Slurm from its signal to its second life,
with stand-ins for srun and scontrol alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.launcher_stand_ins import ROOT, bare_environment, install
from tests.cli.programs import losses

LAUNCHER = "examples/gpt2/1.5b.sh"
# The launcher's own model made small enough that nearly all of the time is the start.
SMALL = (
    "--num-layers", "2", "--hidden-size", "200", "--seq-length", "64", "--global-batch-size", "2", "--eval-iters", "0",
    "--log-interval", "1", "--lr-decay-style", "constant",
)  # fmt: skip


class Host(NamedTuple):
    """How a command is run there, its address, and the interface that has it."""

    prefix: tuple[str, ...]
    address: str
    interface: str


@contextlib.contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Two network namespaces with a cable between them, or two loopback addresses."""
    names = [f"contextlm-{os.getpid()}-{end}" for end in "ab"]
    hosts = [Host(("ip", "netns", "exec", name), f"10.77.0.{end}", f"cable{end}") for end, name in enumerate(names, 1)]
    try:
        join(names, hosts)
    except (OSError, subprocess.CalledProcessError):
        hosts = [Host((), "127.0.0.1", "lo"), Host((), "127.0.0.2", "lo")]
    try:
        yield hosts
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def join(names: list[str], hosts: list[Host]) -> None:
    """Make the namespaces and the cable between them."""
    ends = [("name", host.interface, "netns", name) for name, host in zip(names, hosts, strict=True)]
    cable = ("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
    for command in (*(("ip", "netns", "add", name) for name in names), cable):
        subprocess.run(command, check=True, capture_output=True)
    for host in hosts:
        settings = (
            ("address", "add", f"{host.address}/24", "dev", host.interface),
            ("link", "set", host.interface, "up"),
            ("link", "set", "lo", "up"),  # through which a host reaches its own address
        )
        for words in settings:
            subprocess.run([*host.prefix, "ip", *words], check=True, capture_output=True)


def wait_for_steps(folder: Path, count: int, *processes: subprocess.Popen[bytes]) -> None:
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


def test_two_hosts_train_and_one_that_must_go_takes_both_along(data: Path, tmp_path: Path) -> None:
    run, port = tmp_path / "run", str(20000 + os.getpid() % 10000)
    with two_hosts() as hosts, contextlib.ExitStack() as open_files:
        launchers = []
        for rank, host in enumerate(hosts):
            place = {
                "NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": hosts[0].address, "LOCAL_ADDR": host.address,
                "GPUS_PER_NODE": "1", "GLOO_SOCKET_IFNAME": host.interface, "MASTER_PORT": port,
                "MICRO_BATCH_SIZE": "1", "DATA_PATH": str(data), "TOKENIZER_TYPE": "ByteTokenizer", "SAVE": str(run),
            }  # fmt: skip
            log = open_files.enter_context((tmp_path / f"log{rank}").open("wb"))
            command = [*host.prefix, "bash", str(ROOT / LAUNCHER), *SMALL, "--train-iters", "100000"]
            launchers.append(subprocess.Popen(command, env=bare_environment(**place), stdout=log, stderr=log))
        wait_for_steps(run, 2, *launchers)
        launchers[1].send_signal(signal.SIGTERM)
        statuses = [launcher.wait(timeout=120) for launcher in launchers]
    said = [(tmp_path / f"log{rank}").read_text() for rank in (0, 1)]
    assert statuses == [75, 75], said
    for text in said:
        assert text.splitlines()[-1] == "rank 0: SIGTERM: saved, to be continued"
    step = len(losses(run))
    record = json.loads((run / f"iter_{step:07d}" / "run.json").read_text())
    assert record["layout"].startswith("TP 1 x PP 2 x DP 1")


@pytest.mark.full
def test_a_batch_job_saves_before_its_end_and_resumes_when_queued_again(data: Path, tmp_path: Path) -> None:
    """Two nodes on this machine; the signal reaches every process of the step, as Slurm's does."""
    job = {
        **install(tmp_path, torchrun=False), "SLURM_JOB_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost,localhost", "LOCAL_ADDR": "127.0.0.1",
        "MICRO_BATCH_SIZE": "1", "DATA_PATH": str(data), "TOKENIZER_TYPE": "ByteTokenizer", "TOKENIZER_MODEL": "",
    }  # fmt: skip
    run = tmp_path / "run"
    command = ["bash", str(ROOT / "examples/slurm/train.sbatch"), str(ROOT / LAUNCHER), *SMALL, "--train-iters"]
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen([*command, "100000"], env=bare_environment(**job), stdout=log, stderr=log)
        wait_for_steps(run, 2, first)
        first.send_signal(signal.SIGUSR1)
        assert first.wait(timeout=120) == 0, (tmp_path / "log").read_text()
        assert (tmp_path / "requeued").read_text().split() == [job["SLURM_JOB_ID"]]
        before = losses(run)
        again = {**job, "SLURM_RESTART_COUNT": "1"}
        ended = subprocess.run([*command, str(len(before) + 2)], env=bare_environment(**again), stdout=log, stderr=log)
    assert ended.returncode == 0, (tmp_path / "log").read_text()
    assert losses(run)[:-2] == before and len(losses(run)) == len(before) + 2
