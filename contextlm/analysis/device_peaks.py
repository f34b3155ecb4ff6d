"""What devices can do at most, by the names that torch gives them."""

from __future__ import annotations

import re

# Dense bf16 TFLOP/s from the vendor's data sheets, by the words with which torch's name of the device begins.
PEAK_TFLOPS = {
    "NVIDIA B200": 2250.0,
    "NVIDIA GH200": 989.0,
    "NVIDIA H200 NVL": 835.0,
    "NVIDIA H200": 989.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA A100": 312.0,
    "NVIDIA A10": 125.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA L40": 181.0,
    "NVIDIA L4": 121.0,
}


def peak_tflops(device_name: str) -> float | None:
    """Peak of a device by its name; None if it is not known. The longer of two names that fit is first in the list."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if re.match(rf"{name}(?![0-9A-Za-z])", device_name)), None)
