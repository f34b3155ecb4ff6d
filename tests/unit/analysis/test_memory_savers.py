"""What saves memory for one configuration: nothing that is in use, nothing that is not allowed, most first."""

from __future__ import annotations

import re

import pytest

from contextlm.analysis.memory import fullest
from contextlm.analysis.memory_savers import memory_savers
from contextlm.config import Config, parse

FULL = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"


def configuration(line: str) -> Config:
    return parse(["--dry-run", "--model", "gpt2-124m", "--global-batch-size", "64", *line.split()], {}).config


def options(line: str, world_size: int = 8) -> list[str]:
    return [saver.options for saver in memory_savers(configuration(line), 50257, world_size)]


def test_what_is_in_use_is_not_advised() -> None:
    plain = options("--micro-batch-size 8")
    assert {"--micro-batch-size 4", FULL, "--bf16", "--tensor-model-parallel-size 2"} <= set(plain)
    assert "--sequence-parallel" not in plain  # one rank has nobody to share with
    used = options(f"--micro-batch-size 1 --bf16 --tensor-model-parallel-size 2 {FULL}")
    assert not {"--bf16", FULL, "--micro-batch-size 0", "--tensor-model-parallel-size 2"} & set(used)
    assert {"--sequence-parallel", "--tensor-model-parallel-size 4", "--no-accumulate-allreduce-grads-in-fp32"} <= set(
        used
    )
    assert "--use-distributed-optimizer" in options("--no-use-distributed-optimizer --bf16")


def test_what_the_processes_or_the_model_do_not_allow_is_not_advised() -> None:
    one = options("--micro-batch-size 8", world_size=1)
    assert "--micro-batch-size 4" in one and not [words for words in one if "parallel" in words]
    deep = options("--pipeline-model-parallel-size 4", world_size=8)
    assert "--pipeline-model-parallel-size 8" not in deep  # 12 layers


@pytest.mark.parametrize(
    "line", ["--micro-batch-size 8 --bf16", "--micro-batch-size 2 --pipeline-model-parallel-size 2"]
)
def test_the_savings_are_those_of_the_formulas(line: str) -> None:
    savers = memory_savers(configuration(line), 50257, 8)
    assert [saver.saved for saver in savers] == sorted((saver.saved for saver in savers), reverse=True)
    before = fullest(configuration(line), 50257, 8).total
    for saver in savers:
        flag = saver.options.split()[0]
        kept = re.sub(rf"{flag} \S+", "", line)  # given once
        assert fullest(configuration(f"{kept} {saver.options}"), 50257, 8).total == before - saver.saved


def test_a_batch_size_that_was_not_given_stays() -> None:
    """Else half the micro-batch would be half the batch."""
    config = parse(["--dry-run", "--model", "gpt2-124m", "--micro-batch-size", "8"], {}).config
    assert "--micro-batch-size 4" in [saver.options for saver in memory_savers(config, 50257, 8)]
