"""A small study file to vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def study_tree() -> dict[str, Any]:
    """Two arms and a matched one, 4 iterations."""
    return {
        "tokenizer": {"vocab_size": 2048},
        "flags": {"model": "gpt2-tiny", "seq_length": 64, "global_batch_size": 4, "train_iters": 4, "split": "90,10,0"},
        "arms": {
            "plain": {},
            "gated": {"context-chunk-size": 4},
            "deeper": {"match": "params", "of": "gated", "by": "depth"},
        },
        "seeds": [1, 2, 3],
        "baselines": ["plain", "deeper"],
    }


def write_study(folder: Path, tree: dict[str, Any]) -> Path:
    """The tree as `tiny.yaml`."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path
