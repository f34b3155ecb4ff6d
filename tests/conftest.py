"""What many tests share: one gloo process, a pool of processes, a dataset, a finished run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.programs import make_dataset, train

os.environ.setdefault("OMP_NUM_THREADS", "1")
# The suite proves things on the CPU, wherever it runs; tests/gpu starts processes that see the GPUs. A second test
# process inherits the first one's environment, so what was visible before is kept there.
GPUS = os.environ.setdefault("GPUS_OF_TESTS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="module")
def layout() -> Iterator[object]:
    """A layout of this process alone, for models that are built in the test process; the next file may have its own.

    It installs the CPU runtime where CUDA is absent, so `torch.cuda` answers for the CPU from then on.
    """
    import torch

    from contextlm.config.schema import ParallelConfig
    from contextlm.parallel import runtime
    from contextlm.parallel.layout import model_parallel
    from contextlm.parallel.seeds import seed_weights

    torch.set_num_threads(1)
    parallel = ParallelConfig()
    with runtime.start(parallel), model_parallel(parallel) as groups:
        seed_weights(1234, groups)
        yield groups


@pytest.fixture(scope="session")
def pool() -> Iterator[object]:
    """At most eight gloo processes, that run functions of `tests/distributed` under any layout."""
    from tests.distributed.pool import Pool

    with Pool(8) as processes:
        yield processes


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a small dataset under the ByteTokenizer."""
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def twenty_steps(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 20 iterations without a stop."""
    folder = tmp_path_factory.mktemp("twenty")
    done = train(data, folder, "--train-iters", "20")
    assert done.returncode == 0, done.stderr
    return folder
