"""The command that started this process, so that it can be given again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# What users set to change speed or numbers; nothing else of the environment is kept, for it may hold secrets.
_KEPT = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG")
_KEPT_PREFIXES = ("NCCL_", "GLOO_", "PYTORCH_")


def started_with(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Where, with which words and under which variables this process was started.

    Args:
        arguments: sys.argv if not given.
        environment: os.environ if not given.

    Returns:
        `directory`; `command`, a list of words (of a job on several nodes with HOST for the first of them);
        `environment`, the variables that matter.
    """
    words = list(sys.argv if arguments is None else arguments)
    variables = os.environ if environment is None else environment
    kept = {
        name: value for name, value in sorted(variables.items()) if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {
        "directory": os.getcwd(),
        "command": [sys.executable, *_launcher(variables), *words],
        "environment": kept,
    }


def _launcher(variables: Mapping[str, str]) -> list[str]:
    """torchrun's words, as a module of the same Python; none where it was not torchrun."""
    if "TORCHELASTIC_RUN_ID" not in variables:
        return []
    on_this_node = int(variables["LOCAL_WORLD_SIZE"])
    nodes = int(variables["WORLD_SIZE"]) // on_this_node
    meeting = ["--standalone"]
    if nodes > 1:
        meeting = ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29500"]
    return ["-m", "torch.distributed.run", *meeting, "--nproc-per-node", str(on_this_node)]
