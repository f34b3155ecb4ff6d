"""What computes each operation of a run here, as the run itself would choose it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from contextlm.doctor.finding import PROBLEM, Finding

_ABSENT = "install what is missing: pip install -e . in the checkout"


def backends() -> Iterator[Finding]:
    """torch and its parts, then the class or library behind every operation."""
    try:
        import torch
    except Exception as error:  # a torch that is broken raises OSError, ImportError, RuntimeError ...
        yield Finding("backends", "torch", f"does not import: {error}", PROBLEM, _ABSENT)
        return
    yield Finding("backends", "torch", _torch_words(torch))
    try:
        yield from _operations()
    except Exception as error:
        yield Finding(
            "backends", "megatron-core", f"does not import: {type(error).__name__}: {error}", PROBLEM, _ABSENT
        )


def _torch_words(torch: object) -> str:
    from torch import cuda, distributed, version

    words = [f"CUDA {version.cuda}" if version.cuda else "built for the CPU"]
    if version.cuda and distributed.is_nccl_available():
        words.append("NCCL " + ".".join(map(str, cuda.nccl.version())))
    if distributed.is_gloo_available():
        words.append("gloo")
    return ", ".join(words)


def _operations() -> Iterator[Finding]:
    from contextlm.parallel import runtime

    runtime.quiet_imports()
    import torch

    use_cuda = torch.cuda.is_available()
    runtime.prepare_megatron(use_cuda)
    from megatron.core.optimizer import Adam

    from contextlm.model.backends import choose_backend

    backend = choose_backend("auto", half_precision=use_cuda)
    linear = f"{_name(backend.column_parallel_linear())}, {_name(backend.row_parallel_linear())}"
    yield Finding("backends", "attention", _name(backend.core_attention()))
    yield Finding("backends", "norm", _name(backend.layer_norm()))
    yield Finding("backends", "linear", linear)
    yield Finding("backends", "loss", "megatron-core's vocab-parallel cross entropy")
    yield Finding("backends", "optimizer", _name(Adam))
    yield Finding("backends", "communication", "nccl, and gloo among the hosts" if use_cuda else "gloo")
    quick = importlib.util.find_spec("gigatoken") is not None
    words = "gigatoken where it agrees with the tokenizer's own library" if quick else "the tokenizer's own library"
    yield Finding("backends", "tokenizer", words)


def _name(found: type) -> str:
    package = found.__module__.split(".")[0]
    return f"{found.__name__} ({package})"
