"""What is certain to be needed: gradients too, where none are there at the peak of activations."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from contextlm.config import parse
from contextlm.preflight import memory

GIB = 2**30


def test_a_gpu_without_room_for_gradients_is_refused(monkeypatch):
    """GPT-2 1.5B, no buffer: 20.3 GiB of weights and states, 2.9 of gradients when the backward pass ends."""
    monkeypatch.setattr(memory, "_memory_of", lambda device: (str(device), 22 * GIB))
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda found, own: None)
    config = parse(["--dry-run", "--model", "gpt2-1.5b", "--bf16", "--micro-batch-size", "16"], {}).config
    process = SimpleNamespace(device=torch.device("cuda", 0), world_size=1)
    (share,) = memory.shares(config, 50257, process, SimpleNamespace(pipeline_rank=0))
    assert 23 < share.certain / GIB < 23.5 and len(memory.problems([share])) == 1
