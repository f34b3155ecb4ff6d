"""How fast a run is, against what its devices could do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from contextlm.analysis.flops import training_flops_per_token

if TYPE_CHECKING:
    from contextlm.training.setup import Run

# Dense bf16 TFLOP/s from the vendors' data sheets; a name that begins so.
PEAK_TFLOPS = {
    "NVIDIA H200": 989.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA A100": 312.0,
    "NVIDIA A10": 125.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA L4": 121.0,
    "NVIDIA B200": 2250.0,
}


class Throughput:
    """FLOPs per second from tokens per second; the context predictor's are counted."""

    def __init__(self, run: Run) -> None:
        self.world_size = run.runtime.world_size
        self.flops_per_token = training_flops_per_token(run.config, run.tokenizer.vocab_size)
        self.peak = run.config.logging.peak_tflops
        if self.peak is None and run.runtime.device.type == "cuda":
            name = torch.cuda.get_device_name(run.runtime.device)
            self.peak = next((peak for known, peak in PEAK_TFLOPS.items() if name.startswith(known)), None)

    def tflops_per_device(self, tokens_per_second: float) -> float:
        """TFLOP/s of one device."""
        return tokens_per_second * self.flops_per_token / self.world_size / 1e12

    def mfu(self, tokens_per_second: float) -> float | None:
        """Share of the device's peak, 0..1; None where the peak is unknown (CPU, an unlisted device)."""
        return None if self.peak is None else self.tflops_per_device(tokens_per_second) / self.peak
