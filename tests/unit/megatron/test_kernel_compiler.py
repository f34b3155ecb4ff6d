"""What kernels are compiled with is looked for before a run trains, where there is a CUDA device."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig

import pytest
import torch

from contextlm.errors import UserError
from contextlm.megatron.kernel_compiler import compiler_problems
from contextlm.preflight import host_checks
from contextlm.preflight.products import graph_problems
from contextlm.training.whereabouts import Whereabouts
from tests.small_configs import small_config


@pytest.fixture
def complete(monkeypatch, tmp_path):
    """A host with CUDA and everything that is needed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(tmp_path / scheme))
    monkeypatch.setattr(sysconfig, "get_default_scheme", lambda: "posix_local")  # Debian's, without headers
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "posix_prefix").mkdir()
    (tmp_path / "posix_prefix" / "Python.h").touch()
    return tmp_path / "posix_prefix"


def test_nothing_is_missing(complete):
    assert compiler_problems() == []


def test_everything_is_missing_and_all_is_said_at_once(complete, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (complete / "Python.h").unlink()
    package, compiler, header = compiler_problems()
    assert "triton" in package and "install gcc, or set CC" in compiler and str(complete / "Python.h") in header
    monkeypatch.setenv("CC", "/opt/cc")
    assert compiler_problems() == [package, header]


def test_a_cpu_needs_none_of_it(complete, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compiler_problems() == []


def test_it_is_said_beside_other_mistakes(monkeypatch):
    monkeypatch.setattr(host_checks, "compiler_problems", lambda: ["no compiler"])
    with pytest.raises(UserError) as refused:
        host_checks.check(small_config(data_path=("nowhere",)), Whereabouts())
    assert refused.value.problems[0] == "no compiler" and len(refused.value.problems) > 1


def test_graphs_that_are_asked_for_need_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert graph_problems(small_config()) == []
    (problem,) = graph_problems(small_config(compile="auto", cuda_graphs="on"))
    assert problem == "--cuda-graphs on: there is no CUDA device here; drop it"
