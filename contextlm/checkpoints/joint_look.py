"""All ranks look at a checkpoint together: each file is read by one of them, and all know what any of them found."""

from __future__ import annotations

import socket
from pathlib import Path

import torch

from contextlm.checkpoints import checkpoint_folder, manifest
from contextlm.checkpoints.checkpoint_folder import RUN_FILE, Candidates


def candidates(path: str | Path) -> Candidates:
    """What rank 0 sees: a folder may look different elsewhere, while it changes. Collective."""
    seen = [checkpoint_folder.candidates(path) if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(seen)
    assert seen[0] is not None
    return seen[0]


def damage(folder: Path, *, hashes: bool) -> list[str]:
    """As `manifest.damage`; rank r reads file r of the manifest, r + the number of ranks, and so on. Collective."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found: list[tuple[str | None, list[str]]] = [(None, []) for _ in range(world_size)]
    blind = None if (folder / RUN_FILE).exists() else socket.gethostname()
    own = (blind, manifest.damage(folder, hashes=hashes, share=slice(rank, None, world_size)))
    torch.distributed.all_gather_object(found, own)
    hosts = {host for host, _ in found if host is not None}
    if hosts and any(host is None for host, _ in found):
        return [f"it cannot be seen from {', '.join(sorted(hosts))}: every host must have one shared folder"]
    return sorted({problem for _, problems in found for problem in problems})
