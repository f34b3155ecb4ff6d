"""Whether the layers here can be Transformer Engine's, and why not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util

import torch
from packaging.requirements import Requirement

_NAME = "transformer-engine"


def unusable() -> str | None:
    """Why layers of Transformer Engine would not run at all, to stand behind its name; None if they would."""
    if version() is None:
        return "is not installed"
    if not torch.cuda.is_available():
        return "needs a CUDA device"
    if importlib.util.find_spec("transformer_engine") is None:
        return "does not import"  # `megatron/broken_packages.py` hid it
    try:
        importlib.import_module("transformer_engine.pytorch")
    except Exception as error:  # one that was built for another torch or CUDA fails in any way
        return f"does not import: {error}"
    return None


def misfit() -> str | None:
    """Why `--transformer-impl auto` leaves it alone, to stand behind its name; None if it takes it."""
    if (reason := unusable()) is not None:
        return reason
    asked = asked_for()
    if asked is not None and not asked.specifier.contains(version() or "", prereleases=True):
        return f"{version()} is not what megatron-core asks for, {asked.specifier}"
    return None


def version() -> str | None:
    """The installed release; None without one."""
    try:
        return importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return None


def asked_for() -> Requirement | None:
    """The releases that the installed megatron-core names in its own metadata, those it is tested with."""
    lines = importlib.metadata.requires("megatron-core") or ()
    return next((each for each in map(Requirement, lines) if each.name == _NAME), None)
