"""Which software made a checkpoint, and the command that started it."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from megatron.core import __version__ as megatron_version

from contextlm import __version__
from contextlm.training.started_with import started_with


def made_by() -> dict[str, Any]:
    """Versions, the commit of the source where it is a checkout, and `started_with`."""
    return {
        "git_commit": _git_commit(),
        "versions": {
            "contextlm": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "megatron_core": megatron_version,
        },
        "started_with": started_with(),
    }


def _git_commit() -> str | None:
    """The commit of the source, where it is a checkout."""
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
