"""Memory that ran out: what was being done, what the memory is full of, and which options would help this run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil
import torch

from contextlm.analysis.memory import rank_memory
from contextlm.analysis.memory_savers import memory_savers
from contextlm.config.schema import Config
from contextlm.parallel.gpu_memory import GROWING, VARIABLES, said
from contextlm.training import whereabouts
from contextlm.training.faults import Fault, exhausted_memory, first_line
from contextlm.training.whereabouts import Whereabouts

_GIB = 2**30
_SUGGESTIONS = 3
_FRAGMENTED = 0.1  # share of the GPU that torch holds without using it, above which the allocator is worth a word
_PREPARATIONS = (whereabouts.OPENING_TOKENIZER, whereabouts.OPENING_DATA)  # whose memory no layout changes


@contextlib.contextmanager
def in_words(config: Config, where: Whereabouts, vocab_size: int = 0, stage: int = 0) -> Iterator[None]:
    """Inside, an error of an allocator becomes a `Fault`; the tensors that fill the memory are still there by then.

    Args:
        vocab_size: of the tokenizer; 0 while it is not known.
        stage: of the pipeline, this rank's.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, Fault) or (memory := exhausted_memory(error)) is None:
            raise
        raise _fault(error, memory, config, where, vocab_size, stage) from error


def _fault(error: BaseException, memory: str, config: Config, where: Whereabouts, vocab_size: int, stage: int) -> Fault:
    rank, world_size = os.environ.get("RANK", "0"), int(os.environ.get("WORLD_SIZE", "1"))
    what = f"rank {rank} ran out of {memory} memory in {where.now}: {first_line(error)}"
    if where.now.phase in _PREPARATIONS:
        return Fault(what, _host_remedy(), (_host(),))
    shape = f"a micro-batch is {config.training.micro_batch_size} x {config.model.seq_length} tokens"
    kinds = rank_memory(config, vocab_size, stage, world_size, on_cuda=torch.cuda.is_available())
    parts = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in kinds._asdict().items())
    by_formula = f"by the formulas of --dry-run, in GiB: {parts}, together {kinds.total / _GIB:.2f}; {shape}"
    state = kinds.weights + kinds.gradients + kinds.optimizer
    return Fault(
        what,
        _remedy(memory, config, vocab_size, world_size),
        (by_formula, _gpu(state) if memory == "GPU" else _host()),
    )


def _remedy(memory: str, config: Config, vocab_size: int, world_size: int) -> str:
    words = []
    if memory == "GPU" and (now := said()) and GROWING not in now and _held_unused() > _FRAGMENTED:
        words.append(f"{' and '.join(VARIABLES)} unset, for segments that grow (memory is fragmented)")
    savers = memory_savers(config, vocab_size, world_size, on_cuda=torch.cuda.is_available())
    words += [f"{saver.options} (saves {saver.saved / _GIB:.2f} GiB)" for saver in savers]
    if not words:
        return "nothing is left that would save memory with so many processes: start more of them, or a smaller model"
    return f"try {', or '.join(words[:_SUGGESTIONS])}; --dry-run shows the memory of a rank"


def _gpu(state: int) -> str:
    """What torch has measured on this rank's GPU."""
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    free, total = torch.cuda.mem_get_info()
    return (
        f"measured, in GiB: {allocated / _GIB:.2f} in tensors, so {max(allocated - state, 0) / _GIB:.2f} of "
        f"activations and all else; {reserved / _GIB:.2f} held by torch, {free / _GIB:.2f} of the GPU's "
        f"{total / _GIB:.2f} free"
    )


def _held_unused() -> float:
    """Which share of the GPU torch holds and cannot use for what it was asked."""
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return unused / torch.cuda.mem_get_info()[1]


def _host() -> str:
    """What the system says of this process and its host."""
    memory, own = psutil.virtual_memory(), psutil.Process().memory_info().rss
    return (
        f"measured, in GiB: this process has {own / _GIB:.2f} of the host's {memory.total / _GIB:.2f}, and "
        f"{memory.available / _GIB:.2f} are free; {os.environ.get('LOCAL_WORLD_SIZE', '1')} rank(s) share the host"
    )


def _host_remedy() -> str:
    return (
        "each rank of a host opens tokenizer and data for itself: start fewer per host, free its memory, or lift a "
        "limit (ulimit -v, a container's, Slurm's --mem)"
    )
