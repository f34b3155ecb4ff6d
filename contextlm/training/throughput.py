"""How fast a run is, against what its devices could do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from contextlm.analysis.device_peaks import peak_tflops
from contextlm.analysis.flops import training_flops_per_token

if TYPE_CHECKING:
    from contextlm.training.setup import Run


class Throughput:
    """FLOPs per second from tokens per second; the context predictor's are counted."""

    def __init__(self, run: Run) -> None:
        self.world_size = run.runtime.world_size
        self.flops_per_token = training_flops_per_token(run.config, run.tokenizer.vocab_size)
        self.peak = run.config.logging.peak_tflops
        if self.peak is None and run.runtime.device.type == "cuda":
            self.peak = peak_tflops(torch.cuda.get_device_name(run.runtime.device))

    def rates(self, tokens: float, seconds: float) -> dict[str, float | None]:
        """What so many tokens of all processes in so much time come to, by the names of metrics.jsonl.

        `mfu` is the share of the devices' peak, 0..1; None where that is unknown (CPU, an unlisted device).
        """
        per_second = tokens / seconds
        per_device = per_second / self.world_size
        tflops = per_device * self.flops_per_token / 1e12
        return {
            "tokens_per_second": per_second,
            "tokens_per_second_per_gpu": per_device,
            "tflops_per_gpu": tflops,
            "mfu": None if self.peak is None else tflops / self.peak,
        }
