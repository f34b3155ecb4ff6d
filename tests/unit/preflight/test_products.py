"""Products in 8 bits are refused where the device has none, beside all other mistakes."""

from __future__ import annotations

import pytest
import torch

from contextlm.errors import UserError
from contextlm.preflight import host_checks
from contextlm.preflight.products import fp8_device_problems
from contextlm.training.whereabouts import Whereabouts
from tests.small_configs import small_config

EIGHT_BITS = {"bf16": True, "fp8_format": "hybrid", "fp8_recipe": "tensorwise"}


@pytest.fixture
def devices(monkeypatch):
    """Let there be CUDA devices of these compute capabilities."""

    def devices(*capabilities: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")

    return devices


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0), (12, 0)])
def test_a_device_that_has_them(devices, capability):
    devices(capability)
    assert fp8_device_problems(small_config(**EIGHT_BITS)) == []


def test_each_rank_looks_at_its_own_device(devices, monkeypatch):
    devices((9, 0), (8, 6))
    assert fp8_device_problems(small_config(**EIGHT_BITS)) == []
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert fp8_device_problems(small_config(**EIGHT_BITS)) == [
        "--fp8-format hybrid: GPU 1 has compute capability 8.6, and this needs 8.9; drop it"
    ]
    assert fp8_device_problems(small_config(bf16=True)) == []


def test_a_machine_without_any_is_told_with_the_rest(devices):
    devices()
    given = small_config(**EIGHT_BITS, data_path=("no/such/prefix",), tokenizer_type="ByteTokenizer")
    with pytest.raises(UserError) as caught:
        host_checks.check(given, Whereabouts())
    first, second, *_ = caught.value.problems
    assert first == "--fp8-format hybrid: there is no CUDA device here; drop it" and "no/such/prefix" in second
