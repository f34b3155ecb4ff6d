"""Memory that ran out: where, full of what, and three options that this run does not have already."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest
import torch

from contextlm.config import parse
from contextlm.parallel.gpu_memory import VARIABLES
from contextlm.training import faults, out_of_memory
from contextlm.training.faults import Fault
from contextlm.training.whereabouts import Whereabouts

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
GIB = 2**30


def told(error: BaseException, phase: str, monkeypatch, line: str = "", unused: float = 0.0) -> Fault:
    """The words for an error in a phase, on a GPU of 80 GiB with 60 in tensors."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    config = parse(
        ["--dry-run", "--model", "gpt2-124m", "--micro-batch-size", "8", "--global-batch-size", "64", *line.split()], {}
    ).config
    where = Whereabouts()
    where.at(phase, 7, 2)
    measured: dict[str, Any] = {
        "memory_allocated": lambda: 60 * GIB,
        "memory_reserved": lambda: int((60 + unused) * GIB),
        "mem_get_info": lambda: (GIB, 80 * GIB),
    }
    with mock.patch.multiple(torch.cuda, **measured), pytest.raises(Fault) as caught:
        with out_of_memory.in_words(config, where, 50257):
            raise error
    assert caught.value.__cause__ is error
    return caught.value


def test_where_it_was_and_what_the_memory_is_full_of(monkeypatch) -> None:
    fault = told(GPU, "forward and backward", monkeypatch)
    assert fault.what == (
        "rank 0 ran out of GPU memory in forward and backward, iteration 7, forward pass 2: "
        "CUDA out of memory. Tried to allocate 2.00 GiB."
    )
    by_formula, measured = fault.details
    sizes = {name: float(size) for name, size in re.findall(r"(weights|gradients|optimizer) ([\d.]+)", by_formula)}
    assert sizes == {"weights": 0.46, "gradients": 0.46, "optimizer": 0.12}  # 124.4M x (4 + 4 + 8 / 8) bytes
    assert "activations" in by_formula and "a micro-batch is 8 x 1024 tokens" in by_formula
    assert "60.00 in tensors, so 58.96 of activations and all else" in measured and "80.00 free" in measured


def test_three_options_that_are_not_in_use(monkeypatch) -> None:
    first = told(GPU, "forward and backward", monkeypatch).remedy
    assert first.count("(saves ") == 3 and "--micro-batch-size 4 (saves" in first
    line = "--bf16 --recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    second = told(GPU, "forward and backward", monkeypatch, line).remedy
    assert "--bf16" not in second and "--recompute" not in second and second.count("(saves ") == 3


@pytest.mark.parametrize("name", VARIABLES)
def test_a_fragmented_gpu_has_its_own_advice(monkeypatch, name: str) -> None:
    def advised(unused: float) -> bool:
        return "unset, for segments that grow" in told(GPU, "update of the weights", monkeypatch, unused=unused).remedy

    for each in VARIABLES:
        monkeypatch.delenv(each, raising=False)
    assert not advised(15)  # segments grow
    monkeypatch.setenv(name, "max_split_size_mb:512")
    assert advised(15) and not advised(5)
    monkeypatch.setenv(name, "max_split_size_mb:512,expandable_segments:True")
    assert not advised(15)


def test_the_host_before_there_is_a_layout(monkeypatch) -> None:
    allocator = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
    fault = told(allocator, "opening the data", monkeypatch)
    assert "rank 0 ran out of host memory in opening the data, iteration 7" in fault.what
    assert "start fewer per host" in fault.remedy and "of the host's" in fault.details[0] and len(fault.details) == 1


def test_other_errors_stay_what_they_are(monkeypatch) -> None:
    where = Whereabouts()
    for error in (RuntimeError("shape"), Fault("a", "b"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, out_of_memory.in_words(mock.Mock(), where):
            raise error
        assert caught.value is error


def test_the_details_are_printed_before_the_two_lines(capsys) -> None:
    faults.tell(Fault("what", "remedy", ("one", "two")))
    assert capsys.readouterr().err == "one\ntwo\nerror: what\n       remedy\n"
