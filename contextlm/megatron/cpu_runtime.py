"""Run megatron-core on CPU with gloo: a process-wide stand-in for the parts of `torch.cuda` that it calls.

What is wrong: megatron-core 0.16.1 asks `torch.cuda` for its device, its generator and its streams, and
names "cuda" literally in the functions listed in `LITERALS`.
The mend: `install` answers those questions with CPU equivalents and turns the literals into CPU ones. It
patches `torch.cuda` for the whole process, so it is opt-in: the runtime calls it once at start-up where
CUDA is absent, before any megatron-core object is built. Tools and the Hugging Face code never do.
Test: tests/unit/megatron/test_cpu_runtime.py (a new literal in a module that we use fails it).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
from functools import reduce
from typing import Any, cast

import torch

from contextlm.megatron.rewrite import SourceChanged, rewrite

_EDITS = (
    ("device='cuda'", "device='cpu'"),
    ('device="cuda"', 'device="cpu"'),
    ("'torch.cuda.HalfTensor', 'torch.cuda.BFloat16Tensor'", "'torch.HalfTensor', 'torch.BFloat16Tensor'"),
    ("type() == 'torch.cuda.FloatTensor'", "type() == 'torch.FloatTensor'"),
    ("weight.data.cuda()", "weight.data"),
    ("send_tensor.cuda()", "send_tensor"),
    (".cuda(torch.cuda.current_device())", ""),
)

# module -> function -> how many literals it has
LITERALS: dict[str, dict[str, int]] = {
    "pipeline_parallel.schedules": {
        "forward_backward_no_pipelining": 1,
        "forward_backward_pipelining_with_interleaving": 1,
        "forward_backward_pipelining_without_interleaving": 1,
    },
    "optimizer.grad_scaler": {
        "MegatronGradScaler.__init__": 1,
        "DynamicGradScaler.__init__": 3,
        "DynamicGradScaler.load_state_dict": 1,
    },
    "optimizer.optimizer": {
        "MixedPrecisionOptimizer.__init__": 3,
        "Float16OptimizerWithFloat16Params.__init__": 2,
        "FP32Optimizer.__init__": 1,
    },
    "optimizer.distrib_optimizer": {
        "DistributedOptimizer._build_model_and_main_param_groups": 2,
        "DistributedOptimizer.__init__": 1,
        "DistributedOptimizer.get_parameter_state_dp_zero": 1,
    },
    "optimizer.clip_grads": {"count_zeros_fp32": 1},
    "models.common.language_module.language_module": {
        "LanguageModule.setup_embeddings_and_output_layer": 1,
    },
    "transformer.utils": {"get_default_causal_mask": 1, "get_sliding_window_causal_mask": 1},
}


class _Stream:
    """A CUDA stream on a machine that has none: work is done when it is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        """Nothing to wait for."""

    def wait_event(self, event: object) -> None:
        """Nothing to wait for."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


def _cpu_device(*args: Any, **kwargs: Any) -> torch.device:
    return torch.device("cpu")


def _get_rng_state(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.get_rng_state()


def _set_rng_state(new_state: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    torch.set_rng_state(new_state)


def _manual_seed(seed: int) -> None:
    torch.manual_seed(seed)


def _null_context(*args: Any, **kwargs: Any) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _fresh(function: Any) -> Any:
    """A function of its own for each name: torch._dynamo refuses one object under two torch names."""
    return lambda *args, **kwargs: function(*args, **kwargs)


_STAND_INS: dict[str, Any] = {
    "current_device": _cpu_device,
    "device_count": lambda: 1,
    "synchronize": _fresh(_nothing),
    "empty_cache": _fresh(_nothing),
    "set_device": _fresh(_nothing),
    "current_stream": _fresh(_Stream),
    "default_stream": _fresh(_Stream),
    "Stream": _Stream,
    "stream": _null_context,
    "is_current_stream_capturing": lambda: False,
    "memory_allocated": _fresh(_zero),
    "max_memory_allocated": _fresh(_zero),
    "manual_seed": _manual_seed,
    "get_rng_state": _get_rng_state,
    "set_rng_state": _set_rng_state,
    "FloatTensor": torch.FloatTensor,
    "HalfTensor": torch.HalfTensor,
    "BFloat16Tensor": torch.BFloat16Tensor,
    "IntTensor": torch.IntTensor,
    "LongTensor": torch.LongTensor,
}


def literals(source: str) -> int:
    """How many pieces of `source` name CUDA literally."""
    return sum(source.count(piece) for piece, _ in _EDITS)


def install() -> None:
    """Make megatron-core run on the CPU in this process; calling it again changes nothing.

    Raises:
        RuntimeError: CUDA is available, so nothing may be hidden.
        SourceChanged: this is not the megatron-core that the mend was written for.
    """
    if torch.cuda.is_available():
        raise RuntimeError("the CPU runtime hides CUDA: it must not be installed where CUDA is available")
    for name, stand_in in _STAND_INS.items():
        setattr(torch.cuda, name, stand_in)
    for name in ("range_push", "range_pop"):
        setattr(torch.cuda.nvtx, name, _fresh(_nothing))
    for module_name, functions in LITERALS.items():
        module = importlib.import_module(f"megatron.core.{module_name}")
        for qualified_name, count in functions.items():
            _mend(reduce(getattr, qualified_name.split("."), module), count)
    random: Any = importlib.import_module("megatron.core.tensor_parallel.random")
    random._get_cuda_rng_state = _get_rng_state
    random._set_cuda_rng_state = _set_rng_state
    # The tracker expects that forking CUDA's generator leaves the CPU's alone; here they are one.
    logging.getLogger(random.__name__).addFilter(
        lambda record: not record.getMessage().startswith("CPU RNG state changed")
    )
    module = cast(Any, importlib.import_module("megatron.core.transformer.module"))
    # These tuples were built from torch.cuda's types when the module was imported.
    module._FLOAT_TYPES, module._HALF_TYPES = (torch.FloatTensor,), (torch.HalfTensor,)
    module._BF16_TYPES = (torch.BFloat16Tensor,)


def _mend(function: Any, count: int) -> None:
    """Turn the CUDA literals of one function into CPU ones; `count` of them must be there."""
    source = inspect.getsource(inspect.unwrap(getattr(function, "__func__", function)))
    found = literals(source)
    if found != count:
        raise SourceChanged(
            f"{function.__module__}.{function.__qualname__}: expected {count} CUDA literal(s), found {found}; "
            "this mend was written for megatron-core 0.16.1"
        )
    rewrite(function, {old: (new, source.count(old)) for old, new in _EDITS if old in source})
