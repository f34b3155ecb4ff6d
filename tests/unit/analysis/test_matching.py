"""Equal budgets: by the counters of parameters and FLOPs, and nearer than any neighbour."""

from __future__ import annotations

import dataclasses

import pytest

from contextlm.analysis.flops import training_flops_per_token
from contextlm.analysis.matching import SIZES, match
from contextlm.analysis.parameters import count_parameters
from contextlm.config import Config, parse, validate
from contextlm.errors import UserError


def configuration(line: str) -> Config:
    return parse(["--dry-run", *line.split()], {}).config


def amount(config: Config, budget: str, vocab_size: int) -> float:
    counts = {"params": lambda: count_parameters(config, vocab_size).total}
    return counts.get(budget, lambda: training_flops_per_token(config, vocab_size))()


def varied(config: Config, field: str, value: int) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **{field: value}))


@pytest.mark.parametrize("model", ["gpt2-tiny", "pythia-tiny", "gpt2-124m", "pythia-410m"])
@pytest.mark.parametrize("budget", ["params", "flops"])
@pytest.mark.parametrize("size", SIZES)
def test_no_neighbour_is_nearer(model, budget, size):
    plain, head = configuration(f"--model {model}"), configuration(f"--model contextlm-{model}")
    found = match(plain, head, budget, size, 5000)
    field, step = SIZES[size], plain.model.num_attention_heads if size == "width" else 1
    assert found.config == varied(plain, field, found.value)
    assert found.reached == amount(found.config, budget, 5000) and found.wanted == amount(head, budget, 5000)
    assert found.residual == pytest.approx((found.reached - found.wanted) / found.wanted)
    for value in (found.value - step, found.value + step):
        neighbour = varied(plain, field, value)
        farther = abs(amount(neighbour, budget, 5000) - found.wanted) >= abs(found.reached - found.wanted)
        assert farther or validate(neighbour, None, dry_run=True)


def test_the_head_is_worth_its_layers_in_parameters():
    """N predictor layers and N more layers differ by the predictor's norm and the gate."""
    plain, head = configuration("--model gpt2-124m"), configuration("--model contextlm-gpt2-124m")
    found = match(plain, head, "params", "depth", 50257)
    assert (found.field, found.value) == ("num_layers", 14)
    assert found.wanted - found.reached == 2 * 768 + 1


def test_the_mlp_is_the_finest_size():
    plain, head = configuration("--model gpt2-tiny"), configuration("--model contextlm-gpt2-tiny")
    depth, width, mlp = (abs(match(plain, head, "flops", size, 2048).residual) for size in ("depth", "width", "mlp"))
    assert mlp < 1e-3 < width < depth


def test_what_the_layout_forbids_is_not_chosen():
    plain = configuration("--model gpt2-tiny --pipeline-model-parallel-size 4")
    found = match(plain, configuration("--model contextlm-gpt2-tiny"), "params", "depth", 2048)
    assert found.value == 8  # 6 would be exact, but 4 stages share the layers equally
    assert found.residual > 0.1


def test_where_nothing_is_valid_it_says_so():
    impossible = configuration("--model gpt2-tiny --hidden-size 64")
    broken = dataclasses.replace(impossible, training=dataclasses.replace(impossible.training, bf16=True, fp16=True))
    with pytest.raises(UserError, match="--ffn-hidden-size: no valid value near"):
        match(broken, configuration("--model contextlm-gpt2-tiny"), "params", "mlp", 2048)
