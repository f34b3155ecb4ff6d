"""Documents apart on a GPU: by torch's kernel in 16 bits, by a mask in fp32 and with dropout; the CPU's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.distributed.pool import Pool
from tests.gpu import cases, document_cases
from tests.small_configs import BACKBONES

pytestmark = pytest.mark.gpu

BF16 = {"bf16": True}
APART = {"reset_position_ids": True, "reset_attention_mask": True}
MODELS = [
    pytest.param(backbone, {"context_chunk_size": chunk_size}, id=f"{backbone}-w{chunk_size}")
    for backbone in BACKBONES
    for chunk_size in (0, 4)
]


@pytest.mark.parametrize(("backbone", "values"), MODELS)
def test_logits_and_gradients_are_the_cpus(gpu_pool: Pool, pool: Pool, backbone: str, values: dict) -> None:
    """With both flags, and with attention alone; the numbers across documents are others by far."""
    for options in (APART, {"reset_attention_mask": True}):
        given = {"backbone": backbone, "values": values | options}
        rounding, joined = given | {"values": values | options | BF16}, given | {"values": values | BF16}
        (expected,) = pool.run(document_cases.in_documents, 1, **given)
        found, rounded, across = (
            gpu_pool.run(document_cases.in_documents, 1, **each)[0] for each in (given, rounding, joined)
        )
        assert expected["kernel_calls"] == found["kernel_calls"] == 0
        assert rounded["kernel_calls"] == 4  # one for each layer of the backbone; the predictor has a small mask
        for name in ("logits", "gradient"):
            size = np.linalg.norm(expected[name])
            assert np.linalg.norm(found[name] - expected[name]) < 1e-4 * size, name
            assert 1e-5 * size < np.linalg.norm(rounded[name] - expected[name]) < 0.05 * size, name
            assert np.linalg.norm(across[name] - expected[name]) > 0.1 * size, name


@pytest.mark.parametrize("precision", [{}, {"bf16": True}, {"fp16": True}], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("backbone", "values"), MODELS)
def test_no_document_sees_another(gpu_pool: Pool, backbone: str, values: dict, precision: dict) -> None:
    given = values | precision | {"seq_length": 33}
    assert gpu_pool.run(document_cases.seen_across, 1, backbone=backbone, values=given | APART) == [[]]
    assert gpu_pool.run(document_cases.seen_across, 1, backbone=backbone, values=given) != [[]]


def test_no_matrix_over_pairs_of_positions(gpu_pool: Pool) -> None:
    """A mask of 16384 x 16384 would take 256 MiB, in each of two forms."""
    shape = {"bf16": True, "num_layers": 2, "num_attention_heads": 2, "hidden_size": 128, "micro_batch_size": 1}
    apart = shape | APART | {"context_chunk_size": 16}
    peaks = {
        length: gpu_pool.run(cases.peak_bytes, 1, values=apart | {"seq_length": length})[0] for length in (4096, 16384)
    }
    assert peaks[16384] < 5 * peaks[4096] and peaks[16384] < 2**30, peaks


def test_the_host_waits_for_nothing_between_log_lines(gpu_pool: Pool) -> None:
    ends = APART | {"eod_mask_loss": True, "global_batch_size": 4}
    assert gpu_pool.run(cases.waits, 1, values=ends) == [[]]
    assert gpu_pool.run(cases.waits, 1, values=ends | BF16) == [[]]
