"""Transformer Engine: when it is taken, and that checkpoints cross to its layers and back.

It needs CUDA, so its classes are a stand-in's here (`engine_stand_in.py`), with its parameters' names; megatron-core's
wrappers around them, which make the checkpoint, are real.
"""

from __future__ import annotations

import importlib.metadata
import sys
import types
from pathlib import Path

import pytest
import torch

from contextlm.errors import UserError
from contextlm.model import transformer_engine
from tests.cli.programs import run


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.full)])
def test_checkpoints_cross(tmp_path: Path, ranks: int) -> None:
    ended = run("tests/unit/model/engine_case.py", str(tmp_path), processes=ranks, CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("crossed") == ranks


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """A function that makes a release of Transformer Engine seem installed and sound, beside a CUDA device."""

    def install(release: str) -> None:
        real = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: release if name == "transformer-engine" else real(name)
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        for name in ("transformer_engine", "transformer_engine.pytorch"):
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            monkeypatch.setitem(sys.modules, name, module)

    return install


@pytest.mark.parametrize(
    ("release", "fits"),
    [("2.9.0", True), ("2.9.0+70f53666", True), ("2.11.0", True), ("2.2.0", False), ("2.12.0", False)],
)
def test_auto_takes_the_releases_that_megatron_core_asks_for(installed, release, fits):
    installed(release)
    assert transformer_engine.unusable() is None  # who names it gets any of them
    reason = transformer_engine.misfit()
    assert reason is None if fits else reason == f"{release} is not what megatron-core asks for, <2.12.0,>=2.9.0a0"


def test_one_that_does_not_import_is_left_alone(installed, monkeypatch):
    installed("2.9.0")
    monkeypatch.setitem(sys.modules, "transformer_engine", None)  # as contextlm/megatron/broken_packages.py marks it
    assert transformer_engine.misfit() == "does not import"


def test_without_a_device_it_is_left_alone(installed, monkeypatch):
    installed("2.9.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert transformer_engine.misfit() == "needs a CUDA device"


def test_choice(layout, installed, monkeypatch):
    from contextlm.model.backends import choose_backend

    def names(*given: object) -> str:
        return type(choose_backend(*given)).__name__

    assert names("auto", True) == names("torch", True) == "TorchSpecProvider"  # it is not here
    with pytest.raises(UserError, match="transformer-impl transformer_engine: Transformer Engine is not installed"):
        choose_backend("transformer_engine", True)
    installed("2.9.0")
    assert names("auto", True) == "TESpecProvider"
    assert names("auto", False) == names("torch", True) == "TorchSpecProvider"  # its fp32 is TF32
    installed("2.2.0")
    assert (names("auto", True), names("transformer_engine", True)) == ("TorchSpecProvider", "TESpecProvider")
