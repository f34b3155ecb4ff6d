"""FLOPs of the head are counted; a device's peak is found by its whole name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from contextlm.analysis.device_peaks import PEAK_TFLOPS, peak_tflops
from contextlm.analysis.flops import training_flops_per_token
from contextlm.training.throughput import Throughput
from tests.small_configs import small_config


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", None),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Tesla T4", None),
    ],
)
def test_peaks(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_no_name_hides_a_longer_one() -> None:
    assert {name: peak_tflops(name) for name in PEAK_TFLOPS} == PEAK_TFLOPS


def test_rates() -> None:
    def rates(**values: object) -> dict[str, float | None]:
        run = SimpleNamespace(
            config=small_config(**values),
            runtime=SimpleNamespace(world_size=4, device=torch.device("cpu")),
            tokenizer=SimpleNamespace(vocab_size=515),
        )
        return Throughput(run).rates(8000, 2.0)

    found = rates(peak_tflops=2.0)
    flops = training_flops_per_token(small_config(), 515)
    assert found["tokens_per_second"] == 4000 and found["tokens_per_second_per_gpu"] == 1000
    assert found["tflops_per_gpu"] == pytest.approx(1000 * flops / 1e12)
    assert found["mfu"] == pytest.approx(found["tflops_per_gpu"] / 2)
    plain = rates(context_chunk_size=0)
    assert plain["mfu"] is None and plain["tflops_per_gpu"] < found["tflops_per_gpu"]
