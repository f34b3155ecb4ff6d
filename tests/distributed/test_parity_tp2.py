"""The plain models are Hugging Face's under tensor parallelism too."""

from __future__ import annotations

import pytest

from tests.distributed.parity_cases import parity_difference
from tests.distributed.pool import Pool


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
def test_logits_are_hugging_faces(pool: Pool, backbone: str) -> None:
    found = pool.run(parity_difference, 2, backbone=backbone, tensor_model_parallel_size=2)
    assert max(found) < 2e-5, found
