"""What every rank imports, imported once before the ranks are forked. No thread may be started here."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def preload() -> None:
    """Make this process one from which ranks can be forked: on CPUs, on one thread, everything imported."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    os.environ |= dict.fromkeys(variables, "1") | {"CUDA_VISIBLE_DEVICES": ""}
    import torch

    from contextlm.parallel import runtime

    torch.set_num_threads(1)
    runtime.quiet_imports()
    runtime.prepare_megatron(use_cuda=False)
    # Megatron-core looks at the device when it is imported, so these come after the runtime.
    import megatron.core.dist_checkpointing.strategies.torch  # noqa: F401
    import numpy.random  # noqa: F401

    import contextlm.data.byte_tokenizer  # noqa: F401
    import contextlm.parallel.layout  # noqa: F401
    import contextlm.training.evaluation_sets  # noqa: F401
    import contextlm.training.train  # noqa: F401
    import pretrain_contextlm  # noqa: F401

    threads = [Path(f"/proc/self/task/{thread}/comm").read_text().strip() for thread in os.listdir("/proc/self/task")]
    assert len(threads) == 1, f"{threads}: what is forked now may find a lock held for ever"
