"""The device and the process group of this process: CUDA with NCCL, or CPU with gloo.

torchrun tells each process its rank through the environment; a plain `python` start is a world of one.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from contextlm.config.schema import ParallelConfig
from contextlm.errors import UserError
from contextlm.parallel.gpu_memory import grow_segments
from contextlm.parallel.meeting import agree_on_name


@dataclass(frozen=True)
class Runtime:
    """Where this process computes.

    Attributes:
        attempt: a name that the ranks share, and no earlier attempt of the same job.
    """

    device: torch.device
    rank: int
    world_size: int
    attempt: str


@contextlib.contextmanager
def start(parallel: ParallelConfig) -> Iterator[Runtime]:
    """Choose the device, start the process group, apply the mends; end the group on leaving.

    Where CUDA is absent the CPU runtime is installed, which patches `torch.cuda` for the whole process.
    """
    quiet_imports()
    # Not started by torchrun: a world of one, which needs no port. A rank of several without their address is an error.
    alone = "MASTER_ADDR" not in os.environ and os.environ.get("WORLD_SIZE", "1") == "1"
    if alone:
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ["LOCAL_RANK"])
    # One hardware queue keeps the order of kernels and collectives; megatron-core's overlap relies on it.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    use_cuda = torch.cuda.is_available()
    backend = parallel.distributed_backend
    if backend == "nccl" and not use_cuda:
        raise UserError("--distributed-backend nccl: there is no CUDA device here; use gloo, or leave it out")
    if use_cuda:
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"torchrun --nproc-per-node: local rank {local_rank} has no GPU, this machine has "
                f"{torch.cuda.device_count()}; start as many processes, or hide the GPUs with CUDA_VISIBLE_DEVICES="
            )
        torch.cuda.set_device(local_rank)
        grow_segments()
    device = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    prepare_megatron(use_cuda)
    timeout = datetime.timedelta(minutes=parallel.distributed_timeout_minutes)
    if alone:
        store: torch.distributed.Store = torch.distributed.HashStore()
    else:
        store, *_ = next(torch.distributed.rendezvous("env://", rank, world_size, timeout=timeout))
    attempt = agree_on_name(store, rank, world_size, timeout)
    torch.distributed.init_process_group(
        ("nccl" if use_cuda else "gloo") if backend == "auto" else backend,
        timeout=timeout,
        device_id=device if use_cuda else None,
        store=torch.distributed.PrefixStore(attempt, store),
        rank=rank,
        world_size=world_size,
    )
    try:
        yield Runtime(device, rank, world_size, attempt)
        # A rank that leaves while its peers are still talking crashes them.
        torch.distributed.barrier()
    except BaseException:
        # NCCL waits for peers that sit in a collective: a failing rank must not; the process ends anyway.
        if not use_cuda:
            torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()


def prepare_megatron(use_cuda: bool) -> None:
    """Apply the mends of megatron-core and, without CUDA, the CPU runtime; importing it warns, unheard."""
    from contextlm.megatron import broken_packages, lazy_compile

    with lazy_compile.at_first_call():
        broken_packages.hide()
        from contextlm.megatron import cpu_runtime, mends

    mends.apply()
    if not use_cuda:
        cpu_runtime.install()


def quiet_imports() -> None:
    """Drop megatron-core's warnings about absent libraries and about itself: none is for our users."""
    for message in (
        ".*([Aa]pex|Transformer Engine|transformer_engine|ModelOpt|nvidia_resiliency_ext).*",
        "full scope is deprecated.*",  # megatron-core of itself
        "The .grad attribute of a Tensor that is not a leaf.*",
        ".*torch.distributed.(reduce_scatter_tensor|all_gather_into_tensor)` is deprecated.*",
        ".*_get_pg_default_device.*",
        "`load_state_dict` is deprecated.*",
        ".*TypedStorage is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
