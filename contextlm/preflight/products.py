"""Can the device here do what is asked: multiply numbers of 8 bits, launch kernels together?"""

from __future__ import annotations

import os

import torch

from contextlm.config.schema import Config

_LEAST = (8, 9)
"""Compute capability."""


def fp8_device_problems(config: Config) -> list[str]:
    """Why `--fp8-format` cannot be had on this rank's device, if it is asked for."""
    if not config.fp8:
        return []
    flag = f"--fp8-format {config.training.fp8_format}"
    if not torch.cuda.is_available():
        return [f"{flag}: there is no CUDA device here; drop it"]
    # More ranks than devices are found later.
    device = min(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count() - 1)
    capability = torch.cuda.get_device_capability(device)
    if capability >= _LEAST:
        return []
    major, minor = capability
    return [
        f"{flag}: {torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, and this needs "
        f"{_LEAST[0]}.{_LEAST[1]}; drop it"
    ]


def graph_problems(config: Config) -> list[str]:
    """Why `--cuda-graphs on` cannot be had here."""
    if config.training.cuda_graphs != "on" or torch.cuda.is_available():
        return []
    return ["--cuda-graphs on: there is no CUDA device here; drop it"]
