"""The trainer's model over two tensor-parallel processes gives the logits of one.

Each process reads its slices from the checkpoint or the Hugging Face folder; they talk over gloo.

Shapes: B sequences of S tokens, V ids of the vocabulary.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed import TCPStore

from contextlm.checkpoints import checkpoint_folder
from contextlm.config.schema import Config, ParallelConfig
from contextlm.inference.predictions import open_gate
from contextlm.inference.subject import Subject, configuration
from contextlm.verification.proof import ROUNDING, Proof
from contextlm.verification.random_texts import random_ids

if TYPE_CHECKING:
    from megatron.core.transformer.module import MegatronModule

SIZE = 2
_CLAIM = "tensor parallel over 2 = 1 process"


def tensor_parallel(examined: Subject) -> list[Proof]:
    """Compare two new processes with `examined`: a checkpoint, or a folder whose weights the trainer's model takes."""
    config = configuration(examined.folder)
    heads = config.model.num_attention_heads
    if heads % SIZE:
        return [Proof(_CLAIM, None, ROUNDING, f"{heads} attention heads cannot be halved", skipped=True)]
    length = min(3 * max(1, examined.chunk_size) + 2, examined.num_positions)
    ids_BS = random_ids(examined, 2, length, seed=3)
    alone_BSV = examined.logits(ids_BS).float().cpu()
    split_BSV = _new_processes(examined.folder, ids_BS, alone_BSV.shape[-1])
    worst = (split_BSV - alone_BSV).abs().max().item() / alone_BSV.abs().max().item()
    return [Proof(_CLAIM, worst, ROUNDING, f"2 x {length} tokens, gloo")]


def split_logits(folder: str, tokens: list[list[int]], vocab_size: int) -> Tensor:
    """What each of the two processes does: logits [B, S, V] of the whole, on every rank, the gate open.

    Args:
        folder: with the weights.
        tokens: [B, S].
        vocab_size: rows of vocabulary that are not padding.
    """
    from contextlm.inference.opened import built

    config = configuration(Path(folder))
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, transformer_impl="torch"),
        parallel=ParallelConfig(tensor_model_parallel_size=SIZE, distributed_backend="gloo"),
        training=dataclasses.replace(config.training, bf16=False, fp16=False, recompute_granularity=None),
    )
    with built(config, vocab_size) as (model, layout, _):
        from contextlm.checkpoints.loading import read_weights

        if (Path(folder) / checkpoint_folder.CONFIG_FILE).is_file():
            read_weights([model], layout, Path(folder))
        else:
            _fill_slices(model, Path(folder), config)
        ids_BS = torch.tensor(tokens)
        positions_BS = torch.arange(ids_BS.shape[1]).expand_as(ids_BS)
        with open_gate(model):
            part_BSV = model.eval()(ids_BS, positions_BS, None)
        parts = [torch.empty_like(part_BSV) for _ in range(SIZE)]
        torch.distributed.all_gather(parts, part_BSV.contiguous(), group=layout.groups.tp)
        return torch.cat(parts, dim=-1)[..., :vocab_size].float()


def _fill_slices(model: MegatronModule, folder: Path, config: Config) -> None:
    """Give this rank its slices of a Hugging Face folder's weights."""
    from contextlm.interop.huggingface_weights import from_huggingface
    from contextlm.interop.loaded_huggingface import read_config
    from contextlm.interop.safetensors_folder import find_weights

    parts = {part.key: part for part in model.sharded_state_dict(metadata={"non_homogeneous_layers": True}).values()}
    for name, whole in from_huggingface(read_config(folder)["model_type"], find_weights(folder), config):
        part = parts.pop(name)
        place = zip(part.global_offset, part.local_shape, strict=True)
        mine = whole[tuple(slice(start, start + size) for start, size in place)]
        part.data[: mine.shape[0]] = mine  # of the last rank's vocabulary fewer rows: the others are padding
    assert not parts, sorted(parts)


def _new_processes(folder: Path, ids_BS: Tensor, vocab_size: int) -> Tensor:
    """Start both, wait for both; a process that fails ends the proof with its traceback on stderr."""
    with tempfile.TemporaryDirectory() as place:
        # The store listens here: a port that is free now may be taken before a process binds it.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("spawn")
        given = (str(folder), ids_BS.tolist(), vocab_size, place, store.port, torch.get_num_threads())
        workers = [context.Process(target=_worker, args=(rank, *given), daemon=True) for rank in range(SIZE)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RuntimeError("a tensor-parallel process failed; its error is above")
        return load_file(Path(place) / "logits.safetensors")["logits"]


def _worker(
    rank: int, folder: str, tokens: list[list[int]], vocab_size: int, place: str, port: int, num_threads: int
) -> None:
    """One of the two processes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(SIZE),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    torch.set_num_threads(max(1, num_threads // SIZE))
    logits_BSV = split_logits(folder, tokens, vocab_size)
    if rank == 0:
        save_file({"logits": logits_BSV.contiguous()}, Path(place) / "logits.safetensors")
