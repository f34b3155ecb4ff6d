"""What the doctor finds on machines that lack something, and on this one."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contextlm.doctor import backends, file_system, machine, network, packages
from contextlm.doctor.finding import OK, PROBLEM, WARNING, Finding
from tools import doctor


def by_name(found: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


def test_this_machine_is_looked_at_as_a_run_would(tmp_path: Path, capsys) -> None:
    """The classes are those that the start of a run names (training/announcement.py)."""
    assert doctor.main(["--dir", str(tmp_path), "--json"]) == 0
    found = {(line["subject"], line["name"]): line for line in json.loads(capsys.readouterr().out)}
    assert found["packages", "megatron-core"]["words"].startswith("0.16")
    assert found["backends", "attention"]["words"] == "ScaledDotProductAttention (contextlm)"
    assert found["backends", "optimizer"]["words"] == "FusedAdamW (contextlm)"
    assert "lo " in found["network", "interfaces"]["words"]
    subjects = {subject for subject, _ in found}
    assert subjects == {"packages", "backends", "machine", "files", "network"}
    assert list(tmp_path.iterdir()) == []
    for line in found.values():
        assert (line["state"] == OK) == (line["remedy"] == ""), line


def test_lines_name_the_state_and_the_remedy(capsys, monkeypatch) -> None:
    several = [Finding("a", "x", "fine"), Finding("a", "long name", "bad", PROBLEM, "mend it")]
    assert doctor._lines(several) == [
        "a",
        "  x          fine",
        "X long name  bad",
        "             problem: mend it",
        "1 problem(s), 0 warning(s)",
    ]


@pytest.fixture
def module(tmp_path: Path, monkeypatch):
    """Put a package with this code first on the path."""

    def make(name: str, code: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        for loaded in [entry for entry in sys.modules if entry.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)

    return make


def test_an_impostor_of_apex_is_recognised_without_being_imported(module) -> None:
    module("apex", "raise SystemExit('imported')")
    found = by_name(packages.packages())["apex"]
    assert found.state == PROBLEM and "is not NVIDIA's" in found.words and "pip uninstall apex" in found.remedy


def test_a_transformer_engine_that_does_not_import_says_why(module) -> None:
    module("transformer_engine", "raise OSError('libcudart.so.13: cannot open shared object file')")
    found = by_name(packages.packages())["transformer-engine"]
    assert found.state == WARNING and "OSError: libcudart.so.13" in found.words


def test_what_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(packages, "_version", lambda name: None)
    found = by_name(packages.packages())
    assert found["torch"].state == PROBLEM and found["torch"].remedy == "install it: pip install torch"
    assert found["not installed"].state == OK and "tiktoken (TikTokenizer)" in found["not installed"].words


def test_megatron_core_that_does_not_import(monkeypatch) -> None:
    def broken() -> None:
        raise ImportError("no module named megatron")

    monkeypatch.setattr(backends, "_operations", broken)
    found = by_name(backends.backends())
    assert found["torch"].state == OK and found["megatron-core"].state == PROBLEM


Interface = namedtuple("Interface", "family address")


@pytest.fixture
def interfaces(monkeypatch):
    """This host has these interfaces, and its name resolves to this address."""

    def have(up: dict[str, str], address: str | None) -> None:
        entries = {name: [Interface(network.socket.AF_INET, found)] for name, found in up.items()}
        monkeypatch.setattr(network.psutil, "net_if_addrs", lambda: entries)
        monkeypatch.setattr(network.psutil, "net_if_stats", lambda: {name: SimpleNamespace(isup=True) for name in up})
        monkeypatch.setattr(network, "_resolved", lambda name: address if name != "nowhere" else None)

    return have


SEVERAL = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
TWO = {"lo": "127.0.0.1", "eth0": "10.0.0.1", "ib0": "10.1.0.1"}


@pytest.mark.parametrize(
    ("up", "address", "environ", "states"),
    [
        (TWO, "10.0.0.1", {}, {"host name": OK, "gloo": OK, "NCCL": OK}),
        (TWO, "10.0.0.1", SEVERAL, {"host name": OK, "gloo": OK, "NCCL": WARNING}),
        (TWO, "127.0.1.1", {}, {"host name": OK, "gloo": OK}),
        (TWO, "127.0.1.1", SEVERAL, {"host name": WARNING, "gloo": PROBLEM}),
        (TWO, None, {}, {"host name": WARNING, "gloo": WARNING}),
        (TWO, None, SEVERAL, {"host name": PROBLEM, "gloo": PROBLEM}),
        (TWO, "127.0.1.1", SEVERAL | {"GLOO_SOCKET_IFNAME": "eth0"}, {"gloo": OK}),
        (TWO, "10.0.0.1", {"GLOO_SOCKET_IFNAME": "eth1"}, {"gloo": PROBLEM}),
        (TWO, "10.0.0.1", SEVERAL | {"NCCL_SOCKET_IFNAME": "ib"}, {"NCCL": OK}),
        (TWO, "10.0.0.1", {"NCCL_SOCKET_IFNAME": "=ib"}, {"NCCL": PROBLEM}),
        (TWO, "10.0.0.1", {"MASTER_ADDR": "nowhere"}, {"MASTER_ADDR": PROBLEM}),
        ({"lo": "127.0.0.1"}, "127.0.0.1", SEVERAL, {"NCCL": PROBLEM}),
    ],
)
def test_network(interfaces, up: dict, address: str | None, environ: dict, states: dict) -> None:
    interfaces(up, address)
    found = by_name(network.network(environ))
    assert {name: found[name].state for name in states} == states
    assert all(finding.remedy for finding in found.values() if finding.state != OK)


def test_nccl_takes_infiniband_first(interfaces) -> None:
    interfaces(TWO, "10.0.0.1")
    assert by_name(network.network({}))["NCCL"].words == "takes ib0 among ib0, eth0"


def test_a_file_system_that_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(file_system.os, "fsync", fail)
    found = by_name(file_system.file_system(str(tmp_path)))
    assert found["writing"].state == PROBLEM and "Read-only file system" in found["writing"].words
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_gives_a_lock_twice_or_has_another_clock(tmp_path: Path, monkeypatch) -> None:
    now = file_system.time.time()
    monkeypatch.setattr(file_system.lock_files, "create", lambda *_: True)
    monkeypatch.setattr(file_system.time, "time", lambda: now - 3600)
    found = by_name(file_system.file_system(str(tmp_path)))
    assert found["lock"].state == PROBLEM and found["rename"].state == OK
    assert found["clock"].state == WARNING and "3600" in found["clock"].words.replace("3599.", "3600.")


def test_limits(monkeypatch) -> None:
    limits = {machine.resource.RLIMIT_NOFILE: (1024, 4096), machine.resource.RLIMIT_MEMLOCK: (65536, 65536)}
    monkeypatch.setattr(machine.resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 << 20))
    found = by_name(machine.machine())
    assert found["open files"].state == WARNING and "ulimit -n" in found["open files"].remedy
    assert found["shared memory"].state == WARNING and "--ipc=host" in found["shared memory"].remedy
    assert found["locked memory"].state == OK  # without InfiniBand
